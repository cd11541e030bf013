//! What people see of it all, as plain data.

pub mod items;
mod model;

pub use crate::event::Level;
pub use model::{
    BlockedView, ClusterKind, ClusterSummary, ClusterView, Countdown, EventView, EvidenceView, ExitView,
    InstanceState, InstanceView, LinkRow, LinkVerdict, LinksView, NextView, NodeResources, NodeState,
    NodeView, OperationKindView, OperationView, Replicas, ServiceView, Standing, Verdict, VersionView,
    WaitingView, Why,
};

pub use crate::observation::{ExecutorFact, Health, InstanceUsage, NodeUsage, Unavailable};
