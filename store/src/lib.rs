//! The commit log of a node: one physical log that several shards share, on one disk.
//!
//! [`Store::open`] recovers a data folder and gives an [`Appender`], for the one thread that owns
//! the log, and a [`Reader`] for everyone. Batches are written with `pwrite` from a RAM ring, one
//! `fdatasync` serves all that wait, and reads go through maps of the segment files. The formats
//! are described in `docs/formats`: `batch.md`, `segment.md`, and `backup.md`.

// The way in, and how the log opens.
mod appender;
mod commit;
mod recovery;
mod ring;
mod store;

// What lies on the disk.
pub mod batch;
mod folder;
pub mod header;
mod position;
mod segment;
mod segments;
mod snapshot;

// Finding and reading.
mod index;
mod keys;
mod reader;

// What goes on behind the log.
mod files;
mod scrub;
mod space;
mod threads;
pub mod trim;

// A folder that nobody writes to, and copies of one that somebody does.
pub mod backup;
pub mod check;

// The disk, and a simulated one.
pub mod sim;
pub mod vfs;

// Small things.
mod bytes_at;
mod config;
mod error;
mod id_map;
mod latency;
mod stats;
mod sync;

pub use appender::Appender;
pub use batch::{Appended, Batch, IndexEntry, Kind, MappedBatch, QueueBounds, StoredBatch};
pub use commit::OnDurable;
pub use config::{SEGMENT_BYTES_LIMIT, SEGMENT_BYTES_MIN, StoreConfig, UNIT_BYTES_MAX};
pub use error::{AppendError, Fenced, OpenError, ReadError, ReplayError};
pub use folder::FORMAT_VERSION;
pub use header::{BatchHeader, HeaderError};
pub use index::{Qix, QixError};
pub use keys::{Find, Found, FoundBatch, Kix, KixError, KixInfo, KixRow};
pub use latency::{SYNC_BUCKETS, SyncTimes};
pub use position::LogPosition;
pub use reader::Reader;
pub use recovery::{RecoveryReport, Replay};
pub use scrub::ScrubStats;
pub use segment::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentHeaderError};
pub use snapshot::{GENERATIONS_KEPT, Manifest, ManifestError, PartRef, ShardRef};
pub use space::{CompactedRun, Compaction, Expiry, Rule, Trims};
pub use stats::Stats;
pub use store::Store;
pub use threads::Background;
pub use trim::{QUEUE_REMOVED, TRIM_ROWS_MAX, TrimError, TrimRow};
pub use vfs::{RealVfs, Vfs};
