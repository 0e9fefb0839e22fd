//! Bounds of the broker's state, and its few fixed durations. At a bound a request is refused with
//! `LIMIT_REACHED`, or delivery waits; nothing grows past it.

/// Topics of a node, dead-letter topics included.
pub const TOPICS_MAX: usize = 100_000;
/// Queues of a node.
pub const QUEUES_MAX: usize = 1_000_000;
/// Consumer groups of a node.
pub const GROUPS_MAX: usize = 100_000;
/// Views of a node.
pub const VIEWS_MAX: usize = 100_000;
/// Plugin versions of a node.
pub const PLUGINS_MAX: usize = 10_000;
/// Cursors of a node: pairs of group and source that were ever subscribed to.
pub const CURSORS_MAX: usize = 200_000;
/// Filters in a view's chain.
pub const VIEW_BINDINGS_MAX: usize = 16;
/// Bytes of a binding's configuration.
pub const BINDING_CONFIG_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the configurations of all bindings of a node, which it keeps in memory.
pub const BINDING_CONFIGS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a plugin's component, which travels in one log record.
pub const COMPONENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of a plugin's world name.
pub const WORLD_BYTES_MAX: usize = 255;
/// Client keys that are let in.
pub const CLIENTS_MAX: usize = 100_000;
/// Revoked client keys that are remembered; the ones revoked first are forgotten first, which lets
/// none of them in: a key needs a token of its own for that.
pub const REVOKED_MAX: usize = 10_000;
/// Open invitations.
pub const INVITATIONS_MAX: usize = 1_000;
/// Longest life of an invitation, in ms: 30 days.
pub const INVITATION_MS_MAX: i64 = 30 * 24 * 60 * 60 * 1_000;
/// Namespaces that a client may be kept to.
pub const CLIENT_NAMESPACES_MAX: usize = 64;
/// Clients that one reply lists.
pub const CLIENTS_PAGE: usize = 1_000;
/// Steps of a retry policy's backoff.
pub const BACKOFF_STEPS_MAX: usize = 32;
/// Highest `max_attempts` of a retry policy.
pub const ATTEMPTS_MAX: u16 = 1_000;

/// Queues, cursors or rows that a page for retention takes up, about: what the owner does at a time.
pub const RETENTION_PAGE_ROWS: usize = 4_096;

/// Live push subscriptions of a node.
pub const SUBSCRIPTIONS_MAX: usize = 100_000;
/// Waiting long polls of a node.
pub const WAITERS_MAX: usize = 100_000;
/// Messages that one receive may ask for.
pub const RECEIVE_MESSAGES_MAX: u32 = 10_000;
/// Messages that one receive takes at most, whatever it asks for: a reply has room for so many lease runs,
/// and each may be of one message.
pub const RECEIVE_RUNS_MAX: u32 = 4_096;
/// Shortest invisible duration, in ms.
pub const INVISIBLE_MS_MIN: u32 = 100;
/// Longest invisible duration, in ms: 12 hours, as in RocketMQ.
pub const INVISIBLE_MS_MAX: u32 = 12 * 60 * 60 * 1_000;
/// Longest wait of a long poll, in ms.
pub const WAIT_MS_MAX: u32 = 5 * 60 * 1_000;
/// How long a receive that doesn't want to wait may take to look into the queues, in ms.
pub const LOOK_MS: i64 = 1_000;

/// Records that a cursor looks at in one fetch of a queue.
pub const FETCH_RECORDS: u32 = 4_096;
/// Bytes of sections that a cursor looks at in one fetch of a queue.
pub const FETCH_BYTES: u32 = 1024 * 1024;
/// Wait before a fetch is repeated that found no room, in ms.
pub const FETCH_RETRY_MS: i64 = 10;
/// The same where a plugin waits for something that takes longer than that, in ms.
pub const FETCH_PASSING_RETRY_MS: i64 = 250;
/// Messages fetched ahead of credit, per cursor and queue: no fetch starts above it.
pub const READY_MAX: u64 = 4_096;
/// Lease runs out at a time, per cursor and queue; further messages wait.
pub const LEASES_MAX: usize = 65_536;
/// Parked runs per cursor and queue; above it only parked messages are delivered.
pub const PARKED_MAX: usize = 65_536;
/// Gaps between acknowledged ranges, per cursor and queue; above it nothing new is fetched.
pub const ACKED_RANGES_MAX: usize = 65_536;
/// Acks that are known for what they are when repeated, per cursor and queue.
pub const REMEMBERED_ACKS: usize = 1_024;
/// Records passed over by a filter before the cursor's advance is logged without an ack to ride on.
pub const PASSED_RECORDS: u64 = 65_536;
/// Longest time, in ms, before such an advance is logged.
pub const PASSED_MS: i64 = 5_000;

/// Pairs of producer and queue that a shard remembers; beyond it the idlest are forgotten.
pub const PRODUCERS_MAX: usize = 65_536;
/// A pair of producer and queue is forgotten after this many ms without a batch.
pub const PRODUCER_IDLE_MS: i64 = 24 * 60 * 60 * 1_000;
/// Outcomes remembered per producer and queue. A client has at most this many batches on their way
/// to a queue, so that each can be repeated after a lost connection.
pub const OUTCOMES_MAX: usize = 512;
/// Outcomes that stay remembered per producer and queue when the shard is full.
pub const OUTCOMES_MIN: usize = 5;
/// Outcomes remembered per shard, beyond the first [`OUTCOMES_MIN`] of each producer and queue.
pub const OUTCOMES_SHARD_MAX: usize = 1_000_000;
/// A cursor's delivery state is let go after this many ms without a member or lease.
pub const IDLE_MS: i64 = 60 * 1_000;
/// Deadlines that one tick handles; the rest are due at once again.
pub const TICK_DEADLINES: usize = 10_000;
/// Bytes by which credit is taken for messages of unknown size: those that a holder from before a
/// restart renews or gives back.
pub const UNKNOWN_RECORD_BYTES: u32 = 1_024;
