//! The public gRPC API.

pub mod proto;
