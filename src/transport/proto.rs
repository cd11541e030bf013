//! The messages and services between nodes, compiled from `proto/internal.proto`.

#![expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

tonic::include_proto!("quorate.internal.v1");
