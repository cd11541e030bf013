//! Real nodes on hosts of their own, whose networks are cut for real: by direction, by segment, at random. What
//! happened is judged outside of the product, by what workloads and clients wrote down.

mod clients;
mod clock;
mod engines;
mod judge;
mod lab;
mod leaders;
mod rig;
mod soak;
mod split;
#[path = "../common/wait.rs"]
mod wait;
