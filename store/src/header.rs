//! The 128 bytes before each section: a local part of this copy, a logical part of every copy.
//!
//! Byte table: `docs/formats/batch.md`.

mod nonce_mark;

#[cfg(test)]
mod tests;

use tidegate_model::checksum::crc32c;
use tidegate_model::{
    Offset, ProducerEpoch, ProducerId, QueueId, Seq, Sequence, ShardId, Term, Timestamp,
};

use crate::batch::{Kind, flags};
use crate::bytes_at::{i64_at, put, u16_at, u32_at, u64_at};
use crate::position::LogPosition;

pub(crate) use nonce_mark::NonceMark;

/// Bytes of a batch header.
pub const HEADER_BYTES: usize = 128;
/// Where the logical part begins.
pub const LOGICAL_AT: usize = 32;
/// Batches begin on multiples of this.
pub const ALIGN: usize = 8;
/// First bytes of a batch: `TGB` and the version, 1.
pub const MAGIC: u32 = u32::from_le_bytes(*b"TGB\x01");

const LOCAL_FLAG_LOCAL: u16 = 1 << 0;

const _: () = assert!(HEADER_BYTES.is_multiple_of(ALIGN));
const _: () = assert!(HEADER_BYTES == LOGICAL_AT + 96);

/// A batch header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Where it lies; a header found elsewhere is not valid there.
    pub position: LogPosition,
    /// All before this was durable when the batch was appended.
    pub durable_mark: LogPosition,
    /// Raised by each opening of the log.
    pub log_epoch: u32,
    /// CRC-32C of the section; 0 for a pad, whose section is never read.
    pub section_crc: u32,
    /// Number in its shard; 0 for local records.
    pub seq: Seq,
    /// The queue it belongs to; 0 for none.
    pub queue: QueueId,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Who published it.
    pub producer: ProducerId,
    /// The producer's number of the first record.
    pub sequence: Sequence,
    /// The server's clock at the append.
    pub append_time: Timestamp,
    /// The client's clock at the first record (timers: earliest due time).
    pub base_create_time: Timestamp,
    /// The tag bits of all records, or-ed.
    pub tag_bits: u64,
    /// The shard that numbered it.
    pub shard: ShardId,
    /// Leadership term it was numbered in.
    pub term: Term,
    /// Bytes of the section, without padding.
    pub section_len: u32,
    /// Key of end-to-end encryption, 0 for none.
    pub key_id: u16,
    /// See [`flags`].
    pub flags: u16,
    /// Records in the section.
    pub count: u16,
    /// Offsets that it takes.
    pub span: u16,
    /// Life of the producer.
    pub producer_epoch: ProducerEpoch,
    /// What the section holds.
    pub kind: Kind,
    /// How the body block is compressed.
    pub codec: u8,
}

/// Why bytes are no batch header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than a header has.
    #[error("a batch header has {HEADER_BYTES} bytes; there are {len}")]
    Short {
        /// Bytes there are.
        len: usize,
    },
    /// Something else begins here.
    #[error("no batch of format version 1 begins here (magic {found:#010x})")]
    Magic {
        /// The first four bytes.
        found: u32,
    },
    /// The local checksum is wrong: damaged, or of another segment.
    #[error("the batch header's local checksum is wrong: damaged, or left by another segment")]
    LocalCrc,
    /// The logical checksum is wrong.
    #[error("the batch header's logical checksum is wrong")]
    LogicalCrc,
    /// A kind from the future.
    #[error("batch kind {kind} is unknown to this version; open the folder with a newer one")]
    Kind {
        /// The number.
        kind: u8,
    },
}

impl BatchHeader {
    /// Reads a header from the first bytes of `bytes`; `nonce` is its segment's.
    ///
    /// # Errors
    /// [`HeaderError`] says what is wrong; [`HeaderError::Kind`] only after both checksums held.
    pub fn decode(bytes: &[u8], nonce: u64) -> Result<Self, HeaderError> {
        let Some(bytes) = bytes.get(..HEADER_BYTES) else {
            return Err(HeaderError::Short { len: bytes.len() });
        };
        let magic = u32_at(bytes, 0);
        if magic != MAGIC {
            return Err(HeaderError::Magic { found: magic });
        }
        if u32_at(bytes, 4) != local_crc(bytes, nonce) {
            return Err(HeaderError::LocalCrc);
        }
        if u32_at(bytes, LOGICAL_AT) != crc32c(&bytes[LOGICAL_AT + 4..]) {
            return Err(HeaderError::LogicalCrc);
        }
        Ok(Self {
            position: LogPosition(u64_at(bytes, 8)),
            durable_mark: LogPosition(u64_at(bytes, 16)),
            log_epoch: u32_at(bytes, 24),
            section_crc: u32_at(bytes, 36),
            seq: Seq(u64_at(bytes, 40)),
            queue: QueueId(u64_at(bytes, 48)),
            base_offset: Offset(u64_at(bytes, 56)),
            producer: ProducerId(u64_at(bytes, 64)),
            sequence: Sequence(u64_at(bytes, 72)),
            append_time: Timestamp(i64_at(bytes, 80)),
            base_create_time: Timestamp(i64_at(bytes, 88)),
            tag_bits: u64_at(bytes, 96),
            shard: ShardId(u32_at(bytes, 104)),
            term: Term(u32_at(bytes, 108)),
            section_len: u32_at(bytes, 112),
            key_id: u16_at(bytes, 116),
            flags: u16_at(bytes, 118),
            count: u16_at(bytes, 120),
            span: u16_at(bytes, 122),
            producer_epoch: ProducerEpoch(u16_at(bytes, 124)),
            kind: Kind::from_byte(bytes[126])?,
            codec: bytes[127],
        })
    }

    /// The header's bytes in the segment with this `nonce`.
    #[must_use]
    pub fn encode(&self, nonce: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let b = &mut bytes;
        put(b, 36, &self.section_crc.to_le_bytes());
        put(b, 40, &self.seq.0.to_le_bytes());
        put(b, 48, &self.queue.0.to_le_bytes());
        put(b, 56, &self.base_offset.0.to_le_bytes());
        put(b, 64, &self.producer.0.to_le_bytes());
        put(b, 72, &self.sequence.0.to_le_bytes());
        put(b, 80, &self.append_time.0.to_le_bytes());
        put(b, 88, &self.base_create_time.0.to_le_bytes());
        put(b, 96, &self.tag_bits.to_le_bytes());
        put(b, 104, &self.shard.0.to_le_bytes());
        put(b, 108, &self.term.0.to_le_bytes());
        put(b, 112, &self.section_len.to_le_bytes());
        put(b, 116, &self.key_id.to_le_bytes());
        put(b, 118, &self.flags.to_le_bytes());
        put(b, 120, &self.count.to_le_bytes());
        put(b, 122, &self.span.to_le_bytes());
        put(b, 124, &self.producer_epoch.0.to_le_bytes());
        b[126] = self.kind as u8;
        b[127] = self.codec;
        let logical = crc32c(&b[LOGICAL_AT + 4..]);
        put(b, LOGICAL_AT, &logical.to_le_bytes());

        put(b, 0, &MAGIC.to_le_bytes());
        put(b, 8, &self.position.0.to_le_bytes());
        put(b, 16, &self.durable_mark.0.to_le_bytes());
        put(b, 24, &self.log_epoch.to_le_bytes());
        let local_flags = if self.kind.is_local() {
            LOCAL_FLAG_LOCAL
        } else {
            0
        };
        put(b, 28, &local_flags.to_le_bytes());
        let local = local_crc(b, nonce);
        put(b, 4, &local.to_le_bytes());
        bytes
    }

    /// A local record, which has no seq, no queue and no section.
    pub(crate) fn local(
        kind: Kind,
        position: LogPosition,
        durable_mark: LogPosition,
        log_epoch: u32,
    ) -> Self {
        Self {
            position,
            durable_mark,
            log_epoch,
            section_crc: 0,
            seq: Seq(0),
            queue: QueueId(0),
            base_offset: Offset(0),
            producer: ProducerId(0),
            sequence: Sequence(0),
            append_time: Timestamp(0),
            base_create_time: Timestamp(0),
            tag_bits: 0,
            shard: ShardId(0),
            term: Term(0),
            section_len: 0,
            key_id: 0,
            flags: 0,
            count: 0,
            span: 0,
            producer_epoch: ProducerEpoch(0),
            kind,
            codec: 0,
        }
    }

    /// Whether the next batch of the shard belongs to the same atomic unit.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.flags & flags::MORE != 0
    }

    /// Bytes of header, section and padding.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        stored_bytes(self.section_len as usize)
    }

    /// The position after the batch.
    #[must_use]
    pub fn end(&self) -> LogPosition {
        LogPosition(self.position.0.saturating_add(self.stored_bytes()))
    }
}

/// Bytes that a batch with a section of `section_len` takes in the log.
#[must_use]
pub const fn stored_bytes(section_len: usize) -> u64 {
    (HEADER_BYTES + section_len.next_multiple_of(ALIGN)) as u64
}

fn local_crc(bytes: &[u8], nonce: u64) -> u32 {
    // One call over a copy instead of a digest that is fed piece by piece.
    let mut covered = [0; 8 + HEADER_BYTES - 4];
    put(&mut covered, 0, &nonce.to_le_bytes());
    put(&mut covered, 8, &bytes[..4]);
    put(&mut covered, 12, &bytes[8..HEADER_BYTES]);
    crc32c(&covered)
}
