//! What the cluster decides, seen from outside: State made by `apply` alone, verdicts by `detect`, plans by
//! `plan`, and a small world of nodes that obey them.

mod detect;
mod failover;
mod fencing;
mod leadership;
mod membership;
mod operations;
mod preemption;
mod previews;
mod random;
mod recovery;
mod workloads;
mod world;
