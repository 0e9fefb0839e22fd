//! The manifest of a snapshot generation. Byte table: `docs/formats/segment.md`.

use tidegate_model::checksum::crc32c;
use tidegate_model::{Seq, ShardId, Term};

use crate::bytes_at::{u32_at, u64_at};
use crate::position::LogPosition;

const MAGIC: [u8; 8] = *b"TGMANIF\x01";
const HEADER_BYTES: usize = 80;
const SHARD_BYTES: usize = 40;
const PART_BYTES: usize = 24;
const FOOTER_BYTES: usize = 8;
/// Bytes of a manifest: a thousand shards and as many deltas.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// Names a part file, with what it must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartRef {
    /// Number of the file; 0 for no part.
    pub file: u64,
    /// Its bytes.
    pub len: u64,
    /// Their CRC-32C.
    pub crc: u32,
}

/// How far a shard was applied, and its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardRef {
    /// Which shard.
    pub shard: ShardId,
    /// Term of the last applied batch.
    pub term: Term,
    /// Number of the last applied batch, 0 for none.
    pub seq: Seq,
    /// The state; no part if none was ever given.
    pub state: PartRef,
}

/// A snapshot generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Counts generations up.
    pub generation: u64,
    /// Everything before this is in the snapshot; replay begins here.
    pub position: LogPosition,
    /// The log epoch at the position.
    pub log_epoch: u32,
    /// The segment whose index the deltas hold.
    pub newest_segment: LogPosition,
    /// Bounds of all queues.
    pub table: PartRef,
    /// The shards.
    pub shards: Vec<ShardRef>,
    /// The newest segment's index, piece after piece.
    pub deltas: Vec<PartRef>,
}

/// Why bytes are no manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Something else, or of another version.
    #[error("this is no snapshot manifest of version 1")]
    Magic,
    /// The checksum over all of it is wrong.
    #[error("the snapshot manifest's checksum is wrong")]
    Crc,
    /// Counts that the length contradicts.
    #[error("the snapshot manifest's length contradicts its counts")]
    Length,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ManifestError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() < HEADER_BYTES + FOOTER_BYTES {
            return Err(ManifestError::Length);
        }
        if bytes[..8] != MAGIC {
            return Err(ManifestError::Magic);
        }
        let (body, footer) = bytes.split_at(bytes.len() - FOOTER_BYTES);
        if u32_at(footer, 0) != crc32c(body) {
            return Err(ManifestError::Crc);
        }
        let (header, rest) = body.split_at(HEADER_BYTES);
        let shards = u32_at(header, 36) as usize;
        let deltas = u32_at(header, 40) as usize;
        let shard_bytes = shards.checked_mul(SHARD_BYTES);
        let delta_bytes = deltas.checked_mul(PART_BYTES);
        if shard_bytes
            .zip(delta_bytes)
            .and_then(|(a, b)| a.checked_add(b))
            != Some(rest.len())
        {
            return Err(ManifestError::Length);
        }
        let (shard_rows, delta_rows) = rest.split_at(shards * SHARD_BYTES);
        Ok(Self {
            generation: u64_at(header, 8),
            position: LogPosition(u64_at(header, 16)),
            newest_segment: LogPosition(u64_at(header, 24)),
            log_epoch: u32_at(header, 32),
            table: PartRef::decode(&header[48..]),
            shards: shard_rows
                .chunks_exact(SHARD_BYTES)
                .map(ShardRef::decode)
                .collect(),
            deltas: delta_rows
                .chunks_exact(PART_BYTES)
                .map(PartRef::decode)
                .collect(),
        })
    }

    /// The checksum at the end of a manifest's bytes, of all before; 0 for fewer bytes than have one.
    #[must_use]
    pub fn crc_of(bytes: &[u8]) -> u32 {
        match bytes.len().checked_sub(FOOTER_BYTES) {
            Some(at) => u32_at(bytes, at),
            None => 0,
        }
    }

    /// The manifest's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = |count: usize| u32::try_from(count).expect("a few thousand at most");
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.position.0.to_le_bytes());
        bytes.extend_from_slice(&self.newest_segment.0.to_le_bytes());
        bytes.extend_from_slice(&self.log_epoch.to_le_bytes());
        bytes.extend_from_slice(&count(self.shards.len()).to_le_bytes());
        bytes.extend_from_slice(&count(self.deltas.len()).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        self.table.encode(&mut bytes);
        bytes.extend_from_slice(&[0; 8]);
        debug_assert_eq!(bytes.len(), HEADER_BYTES);
        for shard in &self.shards {
            shard.encode(&mut bytes);
        }
        for delta in &self.deltas {
            delta.encode(&mut bytes);
        }
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    /// All part files that it names.
    pub fn parts(&self) -> impl Iterator<Item = PartRef> {
        std::iter::once(self.table)
            .chain(self.shards.iter().map(|shard| shard.state))
            .chain(self.deltas.iter().copied())
            .filter(|part| part.file != 0)
    }
}

impl PartRef {
    fn decode(row: &[u8]) -> Self {
        Self {
            file: u64_at(row, 0),
            len: u64_at(row, 8),
            crc: u32_at(row, 16),
        }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.file.to_le_bytes());
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes.extend_from_slice(&self.crc.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
    }
}

impl ShardRef {
    fn decode(row: &[u8]) -> Self {
        Self {
            shard: ShardId(u32_at(row, 0)),
            term: Term(u32_at(row, 4)),
            seq: Seq(u64_at(row, 8)),
            state: PartRef::decode(&row[16..]),
        }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.shard.0.to_le_bytes());
        bytes.extend_from_slice(&self.term.0.to_le_bytes());
        bytes.extend_from_slice(&self.seq.0.to_le_bytes());
        self.state.encode(bytes);
    }
}
