//! The contract of what runs instances, on the real guard with real processes: everything is asked as a node
//! asks it, and seen on the host.

mod cgroup2;
mod contract;
mod deadlines;
mod deaths;
mod health;
mod lifecycle;
mod limits;
#[cfg(feature = "libvirt")]
mod machines;
mod output;
mod rig;
mod twin;
mod units;
mod workload;
