//! The commit log of a node: one physical log that several shards share, on one disk.
//!
//! [`Store::open`] recovers a data folder and gives an [`Appender`], for the one thread that owns
//! the log, and a [`Reader`] for everyone. Batches are written with `pwrite` from a RAM ring, one
//! `fdatasync` serves all that wait, and reads go through maps of the segment files. All formats
//! are described in `docs/formats/batch.md` and `docs/formats/segment.md`.

mod store;

mod appender;
mod commit;
mod reader;
mod recovery;
mod ring;
mod scrub;

pub mod batch;
pub mod header;
mod index;
mod keys;
mod position;
mod segment;
mod segments;
mod snapshot;
mod space;

mod bytes_at;
mod config;
mod error;
mod files;
mod folder;
mod id_map;
mod latency;
mod stats;
mod sync;
mod threads;

pub mod backup;
pub mod check;
pub mod trim;

pub mod sim;
pub mod vfs;

pub use appender::Appender;
pub use batch::{Appended, Batch, IndexEntry, Kind, QueueBounds, StoredBatch};
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
pub use space::{Expiry, Rule, Trims};
pub use stats::Stats;
pub use store::Store;
pub use threads::Background;
pub use trim::{QUEUE_REMOVED, TRIM_ROWS_MAX, TrimError, TrimRow};
pub use vfs::{RealVfs, Vfs};
