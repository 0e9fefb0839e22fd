//! The vocabulary that Tidegate's crates share: ids, names, limits, and the record section,
//! the bytes of a batch that client, log, wire and guests all read alike.
//!
//! No I/O, no clock, no allocation for reading; `no_std` so that guests use the same codec.
//! The byte layouts are described in `docs/formats`: `record.md` and `guest-call.md`.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

// A message, and the bytes of a batch of them: begin here.
pub mod message;
pub mod property;
pub mod section;

// What guests get to read.
pub mod guest_call;

// Names, numbers and bounds.
pub mod code;
pub mod id;
pub mod limits;
pub mod name;
pub mod role;

// What is asked and set.
pub mod backup;
pub mod find;
pub mod retention;

// Building blocks.
#[cfg(feature = "checksum")]
pub mod checksum;
#[cfg(feature = "compress")]
pub mod compress;
pub mod digest;
pub mod hash;
pub mod queue_table;
pub mod varint;

pub use backup::{BackupFile, FileId};
pub use code::Code;
pub use digest::RecordDigest;
pub use find::{Bookmark, BookmarkError, Order};
pub use id::{
    BatchId, GroupId, LeaseId, MessageId, MessageIdError, Offset, ProducerEpoch, ProducerId,
    QueueId, Seq, Sequence, ShardId, Term, Timestamp, TopicId, ViewId,
};
pub use message::Message;
pub use name::{Name, NameError, TopicRef};
pub use property::{Value, ValueRef};
pub use queue_table::QueueTable;
pub use retention::{Keep, SettingsError, TopicChange, TopicSettings};
pub use role::{Role, RoleError, Roles};
pub use section::{Codec, Record, Section, SectionBuilder, SectionError};
