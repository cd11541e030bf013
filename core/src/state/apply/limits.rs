//! How far everything in State may grow. Beyond, a command is refused and says so; what is only history
//! loses its oldest part instead.

/// Services.
pub const SERVICES: usize = 10_000;
/// Copies of one service.
pub const REPLICAS: u32 = 10_000;
/// Slots of all services together.
pub const SLOTS: usize = 100_000;
/// Nodes.
pub const NODES: usize = 2_000;
/// Deployments remembered of one service; those still running are kept beyond it.
pub const VERSIONS: usize = 10;
/// Operations under way.
pub const OPERATIONS: usize = 2_000;
/// Operations remembered after their end.
pub const ENDED_OPERATIONS: usize = 200;
/// Lines of one operation's history.
pub const OPERATION_NOTES: usize = 100;
/// Moves of one drain at a time.
pub const DRAIN_IN_FLIGHT: u32 = 100;
/// Events remembered.
pub const EVENTS: usize = 2_000;
/// Clients whose answers are remembered.
pub const CLIENTS: usize = 4_096;
/// Answers remembered for one client, unless it says which are settled.
pub const CLIENT_ANSWERS: usize = 64;
/// Bytes of a client's name or another opaque id.
pub const NAME_BYTES: usize = 128;
/// Bytes of a reason or another text for people.
pub const TEXT_BYTES: usize = 1_000;
/// Reasons of one verdict.
pub const REASONS: usize = 16;
/// Bytes of a key.
pub const KEY_BYTES: usize = 4_096;
/// Bytes of one service's spec in its stored form.
pub const SPEC_BYTES: usize = 256 * 1024;
/// Bytes of what one node says of itself in its stored form.
pub const FACTS_BYTES: usize = 64 * 1024;
/// Fencing methods of one node.
pub const FENCE_METHODS: usize = 16;
