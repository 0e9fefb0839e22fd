//! What is appended, and what comes back.

use bytes::Bytes;
use tidegate_model::checksum::crc32c;
use tidegate_model::{
    Offset, ProducerEpoch, ProducerId, QueueId, Seq, Sequence, ShardId, Term, Timestamp,
};

use crate::error::ReadError;
use crate::header::{BatchHeader, HeaderError};
use crate::position::LogPosition;

/// What a batch holds. The numbers are fixed in `docs/formats/batch.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Messages of a queue, dead-letter copies included.
    Data = 0,
    /// What became of a publish that went through bindings.
    Outcome = 1,
    /// References to records of earlier batches, with offsets of their own.
    Refs = 2,
    /// Acks, nacks and lapses of consumer groups.
    Group = 3,
    /// Changes of the catalogue; only in shard 0.
    Catalog = 4,
    /// Births and epochs of producers.
    Producer = 5,
    /// Raised starts of queues, see [`crate::trim`].
    Trim = 6,
    /// Local: the rest of a segment, left empty.
    Pad = 128,
    /// Local: says how much is durable when nothing else follows.
    DurableMark = 129,
    /// Local: the first record of a log epoch.
    Open = 130,
}

impl Kind {
    /// The kind of a header's byte.
    ///
    /// # Errors
    /// [`HeaderError::Kind`] for a number that this version doesn't know.
    pub fn from_byte(byte: u8) -> Result<Self, HeaderError> {
        Ok(match byte {
            0 => Self::Data,
            1 => Self::Outcome,
            2 => Self::Refs,
            3 => Self::Group,
            4 => Self::Catalog,
            5 => Self::Producer,
            6 => Self::Trim,
            128 => Self::Pad,
            129 => Self::DurableMark,
            130 => Self::Open,
            kind => return Err(HeaderError::Kind { kind }),
        })
    }

    /// Whether such a record belongs to this copy of the log only and takes no seq.
    #[must_use]
    pub const fn is_local(self) -> bool {
        matches!(self, Self::Pad | Self::DurableMark | Self::Open)
    }
}

/// Bits of a header's logical flags. Bits not named here are the broker's and kept as they are.
pub mod flags {
    /// The next batch of the shard belongs to the same atomic unit. Set by the store alone.
    pub const MORE: u16 = 1 << 0;
    /// Section and CRC were made by a server, not by the producer's client.
    pub const SERVER_MADE: u16 = 1 << 1;
}

/// A batch to append. The store adds seq, base offset and everything local.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Numbers the batch.
    pub shard: ShardId,
    /// The shard's leadership term; never falls.
    pub term: Term,
    /// Takes `span` offsets of this queue; [`QueueId`] 0 for none.
    pub queue: QueueId,
    /// What the section holds; not one of the local kinds.
    pub kind: Kind,
    /// How the body block is compressed; a [`tidegate_model::Codec`] as a byte.
    pub codec: u8,
    /// Key of end-to-end encryption, 0 for none.
    pub key_id: u16,
    /// See [`flags`]; [`flags::MORE`] is ignored.
    pub flags: u16,
    /// Who published it; 0 for nobody idempotent.
    pub producer: ProducerId,
    /// Life of the producer.
    pub producer_epoch: ProducerEpoch,
    /// The producer's number of the first record.
    pub sequence: Sequence,
    /// The server's clock; never falls within a queue.
    pub append_time: Timestamp,
    /// The client's clock at the first record (timers: earliest due time).
    pub base_create_time: Timestamp,
    /// The tag bits of all records, or-ed.
    pub tag_bits: u64,
    /// Records in the section.
    pub count: u16,
    /// Offsets that the batch takes, at least `count`; 0 without a queue.
    pub span: u16,
    /// Record table, head block, body block; or a control record's own bytes.
    pub section: &'a [u8],
    /// CRC-32C of `section`, as its maker computed it.
    pub section_crc: u32,
}

impl<'a> Batch<'a> {
    /// A record of the server's own, of no queue and no producer.
    #[must_use]
    pub fn control(
        kind: Kind,
        shard: ShardId,
        term: Term,
        now: Timestamp,
        section: &'a [u8],
    ) -> Self {
        Self {
            shard,
            term,
            queue: QueueId(0),
            kind,
            codec: 0,
            key_id: 0,
            flags: flags::SERVER_MADE,
            producer: ProducerId(0),
            producer_epoch: ProducerEpoch(0),
            sequence: Sequence(0),
            append_time: now,
            base_create_time: now,
            tag_bits: 0,
            count: 0,
            span: 0,
            section,
            section_crc: crc32c(section),
        }
    }
}

/// A batch as it lies in the log.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// Everything but the section.
    pub header: BatchHeader,
    /// The section, byte for byte as it was appended.
    pub section: Bytes,
}

/// A batch whose section is not copied. It was whole when it was read, and turns into zeros where the
/// disk loses it ([`crate::vfs::Vfs::broken_maps`]): it can be sent on under its checksum, and nothing
/// else. Neither parse it nor copy parts of it.
#[derive(Clone, Debug)]
pub struct MappedBatch(pub(crate) StoredBatch);

impl MappedBatch {
    /// Everything but the section.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.0.header
    }

    /// The section, byte for byte as it was appended, under the checksum that the header names.
    #[must_use]
    pub fn section(&self) -> &Bytes {
        &self.0.section
    }

    /// A copy of it.
    ///
    /// # Errors
    /// [`ReadError::Quarantined`] if it is not whole any more.
    pub fn to_stored(&self) -> Result<StoredBatch, ReadError> {
        let header = self.0.header;
        let section = Bytes::copy_from_slice(&self.0.section);
        if crc32c(&section) != header.section_crc {
            return Err(ReadError::Quarantined {
                from: header.position,
                to: header.end(),
            });
        }
        Ok(StoredBatch { header, section })
    }
}

/// Where an appended batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its number in its shard.
    pub seq: Seq,
    /// Offset of its first record; the queue's next offset if it takes none.
    pub base_offset: Offset,
    /// Its first byte.
    pub position: LogPosition,
    /// The end of its unit, exclusive: durable once [`crate::Appender::settle`] says so much.
    pub end: LogPosition,
}

/// A batch in a queue's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offsets that it takes.
    pub span: u16,
    /// Records in its section.
    pub count: u16,
    /// Its first byte.
    pub position: LogPosition,
    /// The shard that numbered it.
    pub shard: ShardId,
    /// Its number there.
    pub seq: Seq,
    /// The tag bits of all its records, or-ed.
    pub tag_bits: u64,
    /// Bytes of its section.
    pub section_len: u32,
    /// The server's clock when it was appended.
    pub append_time: Timestamp,
}

impl IndexEntry {
    /// The offset after its last.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.span))
    }
}

/// The offsets that a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueBounds {
    /// The first kept.
    pub start: Offset,
    /// The first not yet durable, exclusive bound of what may be read.
    pub next: Offset,
    /// Stored bytes of the batches between: headers, sections and padding.
    pub bytes: u64,
}
