//! Whole nodes as real processes on loopback: founded, joined, killed, restarted and wiped, steered by the
//! real command line alone.

mod bmc;
mod container;
mod drain;
<<<<<<< HEAD
mod fencing;
=======
mod holders;
>>>>>>> 7aa5aa0 (guard: holders that die one after the other start one another, and nothing is left of them)
mod hostile;
mod joins;
mod leadership;
mod losses;
mod net;
mod rig;
mod segments;
mod services;
mod wire;
