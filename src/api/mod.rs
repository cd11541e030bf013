//! The public gRPC API.

pub mod error;
pub mod proto;
