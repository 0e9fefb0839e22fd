//! Backups of a node, as a client reads them.

use bytes::Bytes;
use tidegate_model::{BackupFile, Timestamp, code};
use tidegate_wire::proto::{self, ReplyKind, RequestKind};

use crate::{Client, Error};

/// Bytes of a piece at most.
pub use tidegate_wire::limits::BACKUP_PIECE_BYTES_MAX;

/// A backup that a node holds for this connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupBegun {
    /// Names it in what is asked next.
    pub backup: u64,
    /// The node, by the pin of its key.
    pub node: String,
    /// When it began by the node's clock: all that was acknowledged before is in it.
    pub began: Timestamp,
    /// End of the log in it, exclusive, as a position of that node.
    pub durable: u64,
    /// The snapshot generation in it, 0 for none.
    pub snapshot: u64,
    /// Position of the snapshot.
    pub snapshot_position: u64,
    /// Format version of the data folder.
    pub format: u32,
    /// Files that it consists of.
    pub files: u32,
    /// Damaged ranges of the log that the node knows: from, and to exclusive.
    pub damaged: Vec<(u64, u64)>,
    /// Damaged ranges that are not listed.
    pub more_damaged: u64,
}

/// A piece of a file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupPiece {
    /// Its bytes; what can't be read is zero.
    pub bytes: Bytes,
    /// Bytes that can't be read.
    pub unreadable: u64,
}

impl Client {
    /// Has the node take hold of everything that a data folder needs. It is held until
    /// [`Client::backup_end`], the end of the connection, or 10 s without a request.
    ///
    /// # Errors
    /// `BACKUP_RUNNING` while another one is held; `DATA_CORRUPT` if the folder can't be backed up.
    pub async fn backup_begin(&self) -> Result<BackupBegun, Error> {
        match self.ask(RequestKind::BackupBegin(proto::Empty {})).await? {
            (ReplyKind::BackupBegun(begun), _) => Ok(BackupBegun {
                backup: begun.backup,
                node: begun.node,
                began: Timestamp(begun.began_ms),
                durable: begun.durable,
                snapshot: begun.snapshot,
                snapshot_position: begun.snapshot_position,
                format: begun.format,
                files: begun.files,
                damaged: begun.damaged.iter().map(|r| (r.from, r.to)).collect(),
                more_damaged: begun.more_damaged,
            }),
            _ => Err(unfitting("the begin of a backup")),
        }
    }

    /// What a backup consists of, from file number `first` on: some of it, none only behind the last.
    ///
    /// # Errors
    /// `BACKUP_OVER`.
    pub async fn backup_files(&self, backup: u64, first: u32) -> Result<Vec<BackupFile>, Error> {
        let kind = RequestKind::BackupFiles(proto::BackupFiles { backup, first });
        match self.ask(kind).await? {
            (ReplyKind::BackupFiles(list), _) => {
                let files = list.files.iter().map(proto::BackupFile::file);
                let files = files.collect::<Option<_>>();
                files.ok_or_else(|| unfitting("a file of the backup"))
            }
            _ => Err(unfitting("the list of a backup's files")),
        }
    }

    /// `len` bytes from `at` on of file number `file`, at most [`BACKUP_PIECE_BYTES_MAX`]. With none
    /// the node only learns that the client is at work.
    ///
    /// # Errors
    /// `BACKUP_OVER`, `INVALID_ARGUMENT` for bytes that aren't there, `FILE` or `DATA_CORRUPT` if the
    /// node can't read them.
    pub async fn backup_read(
        &self,
        backup: u64,
        file: u32,
        at: u64,
        len: u32,
    ) -> Result<BackupPiece, Error> {
        let kind = RequestKind::BackupRead(proto::BackupRead {
            backup,
            file,
            at,
            len,
        });
        match self.ask(kind).await? {
            (ReplyKind::BackupPiece(piece), _) if piece.bytes.len() == len as usize => {
                Ok(BackupPiece {
                    bytes: piece.bytes,
                    unreadable: piece.unreadable,
                })
            }
            _ => Err(unfitting("a piece of the backup")),
        }
    }

    /// Lets the node go on without the backup.
    ///
    /// # Errors
    /// `BACKUP_OVER`.
    pub async fn backup_end(&self, backup: u64) -> Result<(), Error> {
        let kind = RequestKind::BackupEnd(proto::BackupEnd { backup });
        match self.ask(kind).await? {
            (ReplyKind::Done(_), _) => Ok(()),
            _ => Err(unfitting("the end of a backup")),
        }
    }
}

fn unfitting(what: &str) -> Error {
    Error::new(
        code::PROTOCOL,
        format!("the server's answer doesn't fit {what}"),
    )
    .hint("client and server may be of different versions")
}
