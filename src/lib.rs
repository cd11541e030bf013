//! Quorate's shell: the only place with IO. Adapters carry values between the world and the decisions of
//! `quorate-core`; they never import one another.

pub mod api;
pub mod bench;
pub mod cli;
pub mod cockpit;
pub mod demo;
pub mod executors;
pub mod fencing;
pub mod guard;
pub mod host;
pub mod layout;
pub mod logs;
pub mod node;
pub mod output;
pub mod places;
pub mod ports;
pub mod probes;
pub mod raft;
pub mod snapshot_file;
pub mod telemetry;
pub mod transport;
pub mod workload;
