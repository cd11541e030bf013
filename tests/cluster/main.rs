//! Whole nodes as real processes on loopback: founded, joined, killed, restarted and wiped, steered by the
//! real command line alone.

mod bmc;
mod container;
mod disaster;
mod drain;
mod fencing;
mod holders;
mod hostile;
mod joins;
mod leadership;
mod losses;
mod net;
mod rig;
mod segments;
mod services;
#[path = "../common/wait.rs"]
mod wait;
mod wire;
