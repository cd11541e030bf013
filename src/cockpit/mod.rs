//! The cockpit over a cluster that runs in other processes: its calls, its stream of views, its node.

pub mod line;
