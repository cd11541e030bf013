//! Raft as nodes run it: the real library, log store and transport, three nodes in one process over
//! loopback, each on threads of its own and a folder of its own.

mod cluster;
mod crash;
mod elections;
mod faults;
mod membership;
mod power;
mod reads;
mod transport;
