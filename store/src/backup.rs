//! Backups: a running store hands out what a folder needs, and a backup folder keeps it.
//!
//! [`BackupSource`] pins what a data folder consists of at one durable position. A [`BackupFolder`]
//! holds files by number and checksum, and per backup a manifest that names those it consists of:
//! what two backups share is there once. Formats: `docs/formats/backup.md`,
//! reasons: `docs/adr/0023-backup.md`.

mod error;
mod folder;
mod intact;
mod manifest;
mod receive;
mod restore;
mod source;

#[cfg(test)]
mod tests;

pub use error::BackupError;
pub use folder::{BackupFolder, Listed, Removed};
pub use intact::{Intact, Problem};
pub use manifest::{Backup, BackupManifestError, DAMAGED_MAX, KeptFile};
pub use receive::{Incoming, Receiving};
pub use restore::Restored;
pub use source::{BackupSource, Piece, SourceError};
pub use tidegate_model::backup::{BackupFile, DIGEST_BYTES, FILES_MAX, FileId};
