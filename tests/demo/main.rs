//! `quorate demo` as people and scripts start it: real processes, and nothing left of them.

mod cuts;
mod ends;
mod live;
mod rig;
mod scenarios;
