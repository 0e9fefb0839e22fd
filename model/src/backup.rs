//! What a backup consists of, and how that is named: by numbers and digests, never by a user.

use alloc::format;
use alloc::string::String;

/// Files of one backup: 64 TiB of log in segments of the usual size.
pub const FILES_MAX: usize = 1 << 18;
/// Bytes of a component's digest.
pub const DIGEST_BYTES: usize = 32;
/// Bytes of a segment: its header page at least.
const SEGMENT_BYTES: core::ops::RangeInclusive<u64> = 4096..=1 << 30;
/// Bytes of any other file.
const FILE_BYTES_MAX: u64 = 1 << 36;

const SEGMENT: &str = "seg";
const MANIFEST: &str = "manifest";
const PART: &str = "part";
const COMPONENT: &str = "wasm";

/// Which file of a data folder; the same id is the same bytes, from the first to the last kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileId {
    /// A piece of the log.
    Segment {
        /// Position of its first byte.
        base: u64,
        /// The nonce in its header: another one after it was rewritten.
        nonce: u64,
    },
    /// The manifest of a snapshot generation.
    Manifest {
        /// The generation.
        generation: u64,
        /// At a node, CRC-32C of the file: the same for every manifest, as each ends in its own. In a
        /// backup folder, CRC-32C of what stands before that end, which tells manifests apart; in
        /// folders that an earlier release wrote, as at a node.
        crc: u32,
    },
    /// A part of a snapshot generation.
    Part {
        /// Number of the file.
        number: u64,
        /// CRC-32C of the file.
        crc: u32,
    },
    /// A plugin's component.
    Component {
        /// SHA-256 of the file.
        digest: [u8; DIGEST_BYTES],
    },
}

/// A file of a data folder, as far as a backup needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupFile {
    /// Which one.
    pub id: FileId,
    /// Bytes that it has in a data folder; those behind `len` are zero.
    pub size: u64,
    /// Bytes that are kept of it, from the first on.
    pub len: u64,
}

impl BackupFile {
    /// Whether the lengths are such as a file of the kind can have.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        match self.id {
            FileId::Segment { base, .. } => {
                SEGMENT_BYTES.contains(&self.size)
                    && (*SEGMENT_BYTES.start()..=self.size).contains(&self.len)
                    && base.checked_add(self.size).is_some()
            }
            _ => self.len == self.size && self.size <= FILE_BYTES_MAX,
        }
    }
}

impl FileId {
    /// What it is, for people.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Segment { .. } => "segment",
            Self::Manifest { .. } => "manifest",
            Self::Part { .. } => "part",
            Self::Component { .. } => "component",
        }
    }

    /// Its name in a backup folder.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self {
            Self::Segment { base, nonce } => format!("{base:020}-{nonce:016x}.{SEGMENT}"),
            Self::Manifest { generation, crc } => format!("{generation:020}-{crc:08x}.{MANIFEST}"),
            Self::Part { number, crc } => format!("{number:020}-{crc:08x}.{PART}"),
            Self::Component { digest } => format!("{}.{COMPONENT}", hex(digest)),
        }
    }

    /// The id whose name this is.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, extension) = name.split_once('.')?;
        let id = if extension == COMPONENT {
            Self::Component {
                digest: unhex(stem)?,
            }
        } else {
            let (number, mark) = stem.split_once('-')?;
            let number = number.parse().ok()?;
            let crc = || u32::from_str_radix(mark, 16).ok();
            match extension {
                SEGMENT => Self::Segment {
                    base: number,
                    nonce: u64::from_str_radix(mark, 16).ok()?,
                },
                MANIFEST => Self::Manifest {
                    generation: number,
                    crc: crc()?,
                },
                PART => Self::Part {
                    number,
                    crc: crc()?,
                },
                _ => return None,
            }
        };
        // A number can be written in many ways, a name in one.
        (id.file_name() == name).then_some(id)
    }

    /// The CRC-32C that the whole file must have, where the id tells.
    #[must_use]
    pub fn crc(&self) -> Option<u32> {
        match self {
            Self::Manifest { crc, .. } | Self::Part { crc, .. } => Some(*crc),
            Self::Segment { .. } | Self::Component { .. } => None,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; DIGEST_BYTES]> {
    let mut bytes = [0; DIGEST_BYTES];
    if text.len() != 2 * DIGEST_BYTES || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}
