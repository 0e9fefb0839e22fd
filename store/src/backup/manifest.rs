//! The manifest of a backup: what it consists of. Byte table: `docs/formats/backup.md`.

use tidegate_model::Timestamp;
use tidegate_model::backup::{BackupFile, DIGEST_BYTES, FILES_MAX, FileId};
use tidegate_model::checksum::crc32c;

use super::error::BACKUP_VERSION;
use crate::bytes_at::{i64_at, put, u32_at, u64_at};
use crate::position::LogPosition;

const MAGIC: [u8; 8] = *b"TGBACKUP";
const HEADER_BYTES: usize = 96;
const FILE_BYTES: usize = 72;
const RANGE_BYTES: usize = 16;
const FOOTER_BYTES: usize = 8;
/// In the row of a snapshot's manifest: the lower half is the CRC by which the file is named.
const HAS_OWN_CRC: u64 = 1 << 32;
const U32: u64 = u32::MAX as u64;
/// Damaged ranges of a backup's log; further ones are only counted.
pub const DAMAGED_MAX: usize = 10_000;
/// Bytes of a node's name.
pub(super) const NODE_BYTES_MAX: usize = 256;
pub(super) const MANIFEST_BYTES_MAX: u64 = (HEADER_BYTES
    + NODE_BYTES_MAX
    + FILES_MAX * FILE_BYTES
    + DAMAGED_MAX * RANGE_BYTES
    + FOOTER_BYTES) as u64;

/// A file that is kept, with its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptFile {
    /// The file.
    pub file: BackupFile,
    /// CRC-32C of the bytes kept.
    pub crc: u32,
}

/// A backup that is complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backup {
    /// Its number in the folder, from 1.
    pub number: u64,
    /// When it began, by the node's clock.
    pub taken: Timestamp,
    /// The node, by the pin of its key.
    pub node: String,
    /// End of the log in it, exclusive.
    pub durable: LogPosition,
    /// The snapshot generation in it; 0 for none, since the log goes back to its beginning.
    pub snapshot: u64,
    /// Position of the snapshot.
    pub snapshot_position: LogPosition,
    /// Format version of the data folder.
    pub format: u32,
    /// Bytes that were fetched for it; all else was there.
    pub fetched: u64,
    /// Damaged ranges of the log that the node knew or found, at most [`DAMAGED_MAX`]: from, and to
    /// exclusive.
    pub damaged: Vec<(LogPosition, LogPosition)>,
    /// Damaged ranges beyond those.
    pub more_damaged: u64,
    /// What it consists of.
    pub files: Vec<KeptFile>,
}

/// Why bytes are no manifest of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupManifestError {
    /// Something else.
    #[error("this is no manifest of a backup")]
    Magic,
    /// Another version wrote it.
    #[error("the manifest has format version {found}; this program reads {BACKUP_VERSION}")]
    Version {
        /// Version it has.
        found: u32,
    },
    /// The checksum over all of it is wrong.
    #[error("the manifest's checksum is wrong")]
    Crc,
    /// Counts that the length contradicts.
    #[error("the manifest's length contradicts its counts")]
    Length,
    /// A row that no program writes.
    #[error("a row of the manifest can't be right")]
    Row,
}

impl Backup {
    /// Bytes of all that it consists of.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|kept| kept.file.len).sum()
    }

    /// The manifest's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = |count: usize| u32::try_from(count).expect("bounded well below 2³²");
        let mut bytes = vec![0; HEADER_BYTES];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &BACKUP_VERSION.to_le_bytes());
        put(&mut bytes, 12, &self.format.to_le_bytes());
        put(&mut bytes, 16, &self.number.to_le_bytes());
        put(&mut bytes, 24, &self.taken.0.to_le_bytes());
        put(&mut bytes, 32, &self.durable.0.to_le_bytes());
        put(&mut bytes, 40, &self.snapshot.to_le_bytes());
        put(&mut bytes, 48, &self.snapshot_position.0.to_le_bytes());
        put(&mut bytes, 56, &self.fetched.to_le_bytes());
        put(&mut bytes, 64, &self.more_damaged.to_le_bytes());
        put(&mut bytes, 72, &count(self.node.len()).to_le_bytes());
        put(&mut bytes, 76, &count(self.files.len()).to_le_bytes());
        put(&mut bytes, 80, &count(self.damaged.len()).to_le_bytes());
        bytes.extend_from_slice(self.node.as_bytes());
        for kept in &self.files {
            bytes.extend_from_slice(&encode_file(kept));
        }
        for (from, to) in &self.damaged {
            bytes.extend_from_slice(&from.0.to_le_bytes());
            bytes.extend_from_slice(&to.0.to_le_bytes());
        }
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`BackupManifestError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, BackupManifestError> {
        if bytes.len() < HEADER_BYTES + FOOTER_BYTES {
            return Err(BackupManifestError::Length);
        }
        if bytes[..8] != MAGIC {
            return Err(BackupManifestError::Magic);
        }
        let (body, footer) = bytes.split_at(bytes.len() - FOOTER_BYTES);
        // The checksum doesn't cover what stands behind it, which is zero.
        if u32_at(footer, 0) != crc32c(body) || u32_at(footer, 4) != 0 {
            return Err(BackupManifestError::Crc);
        }
        let (header, rest) = body.split_at(HEADER_BYTES);
        let found = u32_at(header, 8);
        if found != BACKUP_VERSION {
            return Err(BackupManifestError::Version { found });
        }
        let count = |at| u32_at(header, at) as usize;
        let (node, files, damaged) = (count(72), count(76), count(80));
        if node > NODE_BYTES_MAX || files > FILES_MAX || damaged > DAMAGED_MAX {
            return Err(BackupManifestError::Length);
        }
        if node + files * FILE_BYTES + damaged * RANGE_BYTES != rest.len() {
            return Err(BackupManifestError::Length);
        }
        let (node, rest) = rest.split_at(node);
        let (files, damaged) = rest.split_at(files * FILE_BYTES);
        let files = files.chunks_exact(FILE_BYTES).map(decode_file);
        let range = |row: &[u8]| (LogPosition(u64_at(row, 0)), LogPosition(u64_at(row, 8)));
        Ok(Self {
            number: u64_at(header, 16),
            taken: Timestamp(i64_at(header, 24)),
            node: String::from_utf8(node.to_vec()).map_err(|_| BackupManifestError::Row)?,
            durable: LogPosition(u64_at(header, 32)),
            snapshot: u64_at(header, 40),
            snapshot_position: LogPosition(u64_at(header, 48)),
            format: u32_at(header, 12),
            fetched: u64_at(header, 56),
            more_damaged: u64_at(header, 64),
            files: files
                .collect::<Option<_>>()
                .ok_or(BackupManifestError::Row)?,
            damaged: damaged.chunks_exact(RANGE_BYTES).map(range).collect(),
        })
    }
}

fn encode_file(kept: &KeptFile) -> [u8; FILE_BYTES] {
    let mut row = [0; FILE_BYTES];
    let (kind, number, nonce) = match kept.file.id {
        FileId::Segment { base, nonce } => (1_u32, base, nonce),
        FileId::Manifest { generation, crc } if crc != kept.crc => {
            (2, generation, HAS_OWN_CRC | u64::from(crc))
        }
        FileId::Manifest { generation, .. } => (2, generation, 0),
        FileId::Part { number, .. } => (3, number, 0),
        FileId::Component { digest } => {
            put(&mut row, 40, &digest);
            (4, 0, 0)
        }
    };
    put(&mut row, 0, &kind.to_le_bytes());
    put(&mut row, 4, &kept.crc.to_le_bytes());
    put(&mut row, 8, &number.to_le_bytes());
    put(&mut row, 16, &nonce.to_le_bytes());
    put(&mut row, 24, &kept.file.size.to_le_bytes());
    put(&mut row, 32, &kept.file.len.to_le_bytes());
    row
}

fn decode_file(row: &[u8]) -> Option<KeptFile> {
    let (crc, number) = (u32_at(row, 4), u64_at(row, 8));
    let id = match u32_at(row, 0) {
        1 => FileId::Segment {
            base: number,
            nonce: u64_at(row, 16),
        },
        2 => FileId::Manifest {
            generation: number,
            crc: match u64_at(row, 16) {
                0 => crc,
                own => {
                    let own_crc = u32::try_from(own & U32).ok()?;
                    // One way to write each: the same CRC stands at 4 alone.
                    if own & !U32 != HAS_OWN_CRC || own_crc == crc {
                        return None;
                    }
                    own_crc
                }
            },
        },
        3 => FileId::Part { number, crc },
        4 => FileId::Component {
            digest: row[40..40 + DIGEST_BYTES].try_into().ok()?,
        },
        _ => return None,
    };
    let file = BackupFile {
        id,
        size: u64_at(row, 24),
        len: u64_at(row, 32),
    };
    file.is_possible().then_some(KeptFile { file, crc })
}
