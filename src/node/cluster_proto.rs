//! The messages and services between nodes beside Raft, compiled from `proto/cluster.proto`.

#![expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

tonic::include_proto!("quorate.cluster.v1");
