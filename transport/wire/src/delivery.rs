//! The delivery frame: records of one stored batch, leased together or read by offset.

use bytes::Bytes;
use tidegate_model::{LeaseId, Offset, Seq, Timestamp};

use crate::bytes_at::{u16_at, u32_at, u64_at};
use crate::frame::{Frame, FrameType, PREFIX_BYTES};
use crate::publish::{expect, prefix};
use crate::refusal::WireError;

/// Bytes of the fixed header, prefix included.
pub const HEADER_BYTES: usize = 64;
/// Bytes of the header as this version writes it: with one extra word, the seq.
pub const HEADER_WITH_SEQ_BYTES: usize = HEADER_BYTES + 8;
/// Prefix flag: records were left out and the CRC is the server's.
pub const FLAG_COMPACTED: u8 = 1;
/// Bytes of a receipt's MAC.
pub const MAC_BYTES: usize = 16;

const _: () = assert!(PREFIX_BYTES + 4 + 4 + 3 * 8 + 4 * 2 + MAC_BYTES == HEADER_BYTES);

/// What a delivery frame says of the section that follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryHeader {
    /// Stands for subscription, queue and shard as announced by [`crate::proto::Alias`].
    pub alias: u32,
    /// CRC-32C of the section.
    pub section_crc: u32,
    /// Offset of delta 0; with `span`, what the receipt covers.
    pub base_offset: Offset,
    /// When it was appended.
    pub append_time: Timestamp,
    /// The lease; 0 for messages that were read and not leased.
    pub lease: LeaseId,
    /// Records in the section.
    pub count: u16,
    /// Offsets that the section covers.
    pub span: u16,
    /// Which delivery of its records this is, from 1; 0 without a lease.
    pub attempt: u16,
    /// Key of end-to-end encryption, 0 for none.
    pub key_id: u16,
    /// MAC of the receipt; zero without a lease.
    pub mac: [u8; MAC_BYTES],
    /// Number of the stored batch in its shard: with the alias's shard and a record's offset delta,
    /// the message id. 0 if the sender didn't say.
    pub seq: Seq,
    /// [`tidegate_model::Codec`] as a byte.
    pub codec: u8,
    /// Records were left out, so the CRC is the server's.
    pub compacted: bool,
}

impl DeliveryHeader {
    /// The header of a frame with a section of `section_len` bytes.
    ///
    /// # Errors
    /// [`WireError::FrameTooLong`] for a section above
    /// [`tidegate_model::limits::SECTION_BYTES_MAX`].
    pub fn encode(&self, section_len: usize) -> Result<[u8; HEADER_WITH_SEQ_BYTES], WireError> {
        let whole = HEADER_WITH_SEQ_BYTES + section_len;
        let mut prefix = prefix(FrameType::DELIVERY, whole, self.codec, 1)?;
        if self.compacted {
            prefix.flags |= FLAG_COMPACTED;
        }
        let mut out = [0; HEADER_WITH_SEQ_BYTES];
        out[..8].copy_from_slice(&prefix.encode());
        out[8..12].copy_from_slice(&self.alias.to_le_bytes());
        out[12..16].copy_from_slice(&self.section_crc.to_le_bytes());
        out[16..24].copy_from_slice(&self.base_offset.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.append_time.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.lease.0.to_le_bytes());
        out[40..42].copy_from_slice(&self.count.to_le_bytes());
        out[42..44].copy_from_slice(&self.span.to_le_bytes());
        out[44..46].copy_from_slice(&self.attempt.to_le_bytes());
        out[46..48].copy_from_slice(&self.key_id.to_le_bytes());
        out[48..64].copy_from_slice(&self.mac);
        out[64..72].copy_from_slice(&self.seq.0.to_le_bytes());
        Ok(out)
    }

    /// Header and section of a frame of type [`FrameType::DELIVERY`]. The section is neither parsed
    /// nor checked against its CRC: the consumer does both.
    ///
    /// # Errors
    /// [`WireError::Unexpected`] for a frame of another type.
    pub fn decode(frame: &Frame) -> Result<(Self, Bytes), WireError> {
        expect(frame, FrameType::DELIVERY)?;
        let bytes = &frame.bytes;
        let seq = if frame.prefix.extra > 0 {
            Seq(u64_at(bytes, HEADER_BYTES))
        } else {
            Seq(0)
        };
        let header = Self {
            alias: u32_at(bytes, 8),
            section_crc: u32_at(bytes, 12),
            base_offset: Offset(u64_at(bytes, 16)),
            append_time: Timestamp(u64_at(bytes, 24).cast_signed()),
            lease: LeaseId(u64_at(bytes, 32)),
            count: u16_at(bytes, 40),
            span: u16_at(bytes, 42),
            attempt: u16_at(bytes, 44),
            key_id: u16_at(bytes, 46),
            mac: bytes[48..64].try_into().expect("sixteen bytes"),
            seq,
            codec: frame.prefix.codec,
            compacted: frame.prefix.flags & FLAG_COMPACTED != 0,
        };
        Ok((header, frame.payload()))
    }
}
