//! Numbers for metrics.

use crate::latency::SyncTimes;
use crate::position::LogPosition;
use crate::scrub::ScrubStats;

/// How the store stands. Counters begin with its opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// End of all that is durable.
    pub durable: LogPosition,
    /// End of all that is written, synced or not.
    pub written: LogPosition,
    /// End of all that is appended.
    pub tail: LogPosition,
    /// Syncs of the log.
    pub syncs: u64,
    /// Memory that the ring takes, in bytes.
    pub ring_bytes: u64,
    /// Segments, the prepared spare not counted.
    pub segments: u64,
    /// Stored bytes of all that queues hold: batches from their starts on.
    pub live_bytes: u64,
    /// Snapshot generations written.
    pub checkpoints: u64,
    /// Index files and snapshots that could not be written.
    pub file_failures: u64,
    /// Damaged ranges known.
    pub quarantined: u64,
    /// Bytes of all segment files, the prepared spare not counted.
    pub log_bytes: u64,
    /// Bytes kept for a full disk.
    pub reserve_bytes: u64,
    /// The reserve was given up, and new messages are refused until it is whole again.
    pub reserve_broken: bool,
    /// Segments that were removed, since nothing in them was live.
    pub segments_removed: u64,
    /// Segments that were rewritten without what was dead in them.
    pub segments_rewritten: u64,
    /// Bytes written by that.
    pub moved_bytes: u64,
    /// Stored bytes of superseded messages that compaction by key took off.
    pub compacted_bytes: u64,
    /// Rounds of compaction by key since the store was opened.
    pub compaction_rounds: u64,
    /// Log bytes read by recovery.
    pub recovery_bytes_read: u64,
    /// How long syncs of the log took.
    pub sync_times: SyncTimes,
    /// What reading full segments again has found.
    pub scrub: ScrubStats,
}
