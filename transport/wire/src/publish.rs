//! Frames of a produce stream that are worth a fixed layout: publish and published.

use bytes::Bytes;
use tidegate_model::{Offset, Seq, Sequence, ShardId};

use crate::bytes_at::{u16_at, u32_at, u64_at};
use crate::frame::{Frame, FrameType, PREFIX_BYTES, Prefix};
use crate::limits::CONTROL_FRAME_BYTES_MAX;
use crate::refusal::WireError;

/// Bytes of a publish header, prefix included.
pub const HEADER_BYTES: usize = 48;
/// Bytes of an entry of a published frame.
pub const OUTCOME_BYTES: usize = 32;
/// Entries of one published frame.
pub const OUTCOMES_MAX: usize = (CONTROL_FRAME_BYTES_MAX - PREFIX_BYTES) / OUTCOME_BYTES;

const OUTCOME_DUPLICATE: u8 = 1;

/// What a publish frame says of the section that follows it. The producer is that of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishHeader {
    /// The client's number for this batch, rising on a stream; the answer repeats it.
    pub ticket: u64,
    /// Index of the queue in the topic, from 0.
    pub queue_index: u32,
    /// The layout by which the client placed it.
    pub layout_version: u32,
    /// Number of the first record in (producer, queue), from 0.
    pub sequence: Sequence,
    /// CRC-32C of the section.
    pub section_crc: u32,
    /// Records in the section.
    pub count: u16,
    /// Offsets it takes; equals `count` from a client.
    pub span: u16,
    /// Key of end-to-end encryption, 0 for none.
    pub key_id: u16,
    /// [`tidegate_model::Codec`] as a byte.
    pub codec: u8,
}

impl PublishHeader {
    /// The header of a frame with a section of `section_len` bytes, at most
    /// [`tidegate_model::limits::SECTION_BYTES_MAX`].
    ///
    /// # Errors
    /// [`WireError::FrameTooLong`] for a longer section.
    pub fn encode(&self, section_len: usize) -> Result<[u8; HEADER_BYTES], WireError> {
        let prefix = prefix(
            FrameType::PUBLISH,
            HEADER_BYTES + section_len,
            self.codec,
            0,
        )?;
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&prefix.encode());
        out[8..16].copy_from_slice(&self.ticket.to_le_bytes());
        out[16..20].copy_from_slice(&self.queue_index.to_le_bytes());
        out[20..24].copy_from_slice(&self.layout_version.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.0.to_le_bytes());
        out[32..36].copy_from_slice(&self.section_crc.to_le_bytes());
        out[36..38].copy_from_slice(&self.count.to_le_bytes());
        out[38..40].copy_from_slice(&self.span.to_le_bytes());
        out[40..42].copy_from_slice(&self.key_id.to_le_bytes());
        Ok(out)
    }

    /// Header and section of a frame of type [`FrameType::PUBLISH`]. The section is neither parsed nor
    /// checked against its CRC: the broker does both before it stores it.
    ///
    /// # Errors
    /// [`WireError::Unexpected`] for a frame of another type.
    pub fn decode(frame: &Frame) -> Result<(Self, Bytes), WireError> {
        expect(frame, FrameType::PUBLISH)?;
        let bytes = &frame.bytes;
        let header = Self {
            ticket: u64_at(bytes, 8),
            queue_index: u32_at(bytes, 16),
            layout_version: u32_at(bytes, 20),
            sequence: Sequence(u64_at(bytes, 24)),
            section_crc: u32_at(bytes, 32),
            count: u16_at(bytes, 36),
            span: u16_at(bytes, 38),
            key_id: u16_at(bytes, 40),
            codec: frame.prefix.codec,
        };
        Ok((header, frame.payload()))
    }
}

/// Where a batch was stored: an entry of a published frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishOutcome {
    /// The ticket of its publish frame.
    pub ticket: u64,
    /// Its number in its shard.
    pub seq: Seq,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// The shard that holds it.
    pub shard: ShardId,
    /// What the acknowledgement survives: 0 nothing, 1 a crash of the process, 2 a power cut, 3 the
    /// loss of a minority of nodes; higher numbers survive at least that.
    pub level: u8,
    /// Whether it was stored by an earlier attempt.
    pub duplicate: bool,
}

/// One published frame for the first [`OUTCOMES_MAX`] of `outcomes`, and the rest.
#[must_use]
pub fn encode_outcomes(outcomes: &[PublishOutcome]) -> (Bytes, &[PublishOutcome]) {
    let (now, rest) = outcomes.split_at(outcomes.len().min(OUTCOMES_MAX));
    let len = PREFIX_BYTES + now.len() * OUTCOME_BYTES;
    let mut out = Vec::with_capacity(len);
    let prefix = prefix(FrameType::PUBLISHED, len, 0, 0).expect("OUTCOMES_MAX entries fit");
    out.extend_from_slice(&prefix.encode());
    for outcome in now {
        out.extend_from_slice(&outcome.ticket.to_le_bytes());
        out.extend_from_slice(&outcome.seq.0.to_le_bytes());
        out.extend_from_slice(&outcome.base_offset.0.to_le_bytes());
        out.extend_from_slice(&outcome.shard.0.to_le_bytes());
        let flags = if outcome.duplicate {
            OUTCOME_DUPLICATE
        } else {
            0
        };
        out.extend_from_slice(&[outcome.level, flags, 0, 0]);
    }
    (out.into(), rest)
}

/// The entries of a frame of type [`FrameType::PUBLISHED`].
///
/// # Errors
/// [`WireError`] for a frame of another type or one that ends within an entry.
pub fn decode_outcomes(frame: &Frame) -> Result<Vec<PublishOutcome>, WireError> {
    expect(frame, FrameType::PUBLISHED)?;
    let payload = frame.payload();
    if !payload.len().is_multiple_of(OUTCOME_BYTES) {
        return Err(WireError::Malformed {
            kind: FrameType::PUBLISHED,
            reason: format!("{} bytes are no number of whole entries", payload.len()),
        });
    }
    Ok(payload
        .chunks_exact(OUTCOME_BYTES)
        .map(|entry| PublishOutcome {
            ticket: u64_at(entry, 0),
            seq: Seq(u64_at(entry, 8)),
            base_offset: Offset(u64_at(entry, 16)),
            shard: ShardId(u32_at(entry, 24)),
            level: entry[28],
            duplicate: entry[29] & OUTCOME_DUPLICATE != 0,
        })
        .collect())
}

pub(crate) fn prefix(
    kind: FrameType,
    whole: usize,
    codec: u8,
    extra: u8,
) -> Result<Prefix, WireError> {
    let len = u32::try_from(whole).unwrap_or(u32::MAX);
    let max = kind.bytes_max();
    if whole > max {
        return Err(WireError::FrameTooLong { kind, len, max });
    }
    Ok(Prefix {
        len,
        kind,
        flags: 0,
        codec,
        extra,
    })
}

pub(crate) fn expect(frame: &Frame, kind: FrameType) -> Result<(), WireError> {
    if frame.prefix.kind == kind {
        Ok(())
    } else {
        Err(WireError::Unexpected {
            kind: frame.prefix.kind,
            place: "where another type is read",
        })
    }
}
