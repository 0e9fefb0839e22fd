//! From a backup to a data folder that a store opens.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tidegate_model::checksum::Crc32c;
use tidegate_model::{FileId, QueueId};

use super::error::BackupError;
use super::folder::BackupFolder;
use super::intact::PIECE_BYTES;
use super::manifest::{Backup, KeptFile};
use crate::check::{Offline, Progress, Verified};
use crate::folder::{
    Folder, MANIFEST, PART, QUEUE_INDEX, SEGMENT, file_name, sync_names, write_durably,
};
use crate::index::{NO_SEGMENT, encode_qix};
use crate::recovery::rebuild_index;
use crate::segment::Segment;

/// What was made of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files, indexes not counted.
    pub files: u64,
    /// Bytes read from the backup.
    pub bytes: u64,
    /// Indexes that were made of segments.
    pub indexes: u64,
    /// What reading all of the new folder found.
    pub verified: Verified,
}

impl BackupFolder {
    /// Makes a store of a backup in `log`, with its components in `components`; both must be empty
    /// or not there. Reads and checks all of the backup first, and all of the new folder in the
    /// end. The store can be opened only once everything else is there.
    ///
    /// # Errors
    /// [`BackupError::Damaged`] names the first file that isn't whole, and nothing is made then;
    /// [`BackupError::NotEmpty`]; else those of the file system.
    pub fn restore(
        &self,
        backup: &Backup,
        log: &Path,
        components: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Restored, BackupError> {
        let folder = Folder::at(log);
        for dir in [log, &folder.log, &folder.snapshot, components] {
            match self.vfs.list(dir) {
                Ok(names) if names.is_empty() => {}
                Ok(_) => {
                    return Err(BackupError::NotEmpty {
                        dir: dir.to_owned(),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(BackupError::io("listing", dir)(error)),
            }
        }
        self.refuse_damaged(backup, progress)?;
        for dir in [log, &folder.log, &folder.snapshot, components] {
            self.vfs
                .create_dir(dir)
                .map_err(BackupError::io("making", dir))?;
        }
        let mut restored = Restored::default();
        let mut segments = Vec::new();
        let of = backup.bytes();
        for kept in &backup.files {
            let name = match kept.file.id {
                FileId::Segment { base, .. } => folder.log_file(base, SEGMENT),
                FileId::Manifest { generation, .. } => folder.snapshot_file(generation, MANIFEST),
                FileId::Part { number, .. } => folder.snapshot_file(number, PART),
                FileId::Component { .. } => components.join(kept.file.id.file_name()),
            };
            let done = restored.bytes;
            self.copy(kept, &name, &mut |bytes| {
                let done = done + bytes;
                progress(Progress { done, of });
            })?;
            restored.files += 1;
            restored.bytes += kept.file.len;
            if let FileId::Segment { base, .. } = kept.file.id {
                let size = kept.file.size;
                segments.push(Arc::new(Segment::new(self.vfs.clone(), name, base, size)));
            }
        }
        segments.sort_unstable_by_key(|segment| segment.base());
        restored.indexes = self.write_indexes(&folder, &segments)?;
        for dir in [components, &folder.log, &folder.snapshot] {
            self.vfs
                .sync_dir(dir)
                .map_err(BackupError::io("syncing", dir))?;
        }
        sync_names(self.vfs.as_ref(), log)?;
        folder.write_version(self.vfs.as_ref())?;
        restored.verified = Offline::open(self.vfs.clone(), log)?.verify(progress)?;
        Ok(restored)
    }

    fn refuse_damaged(
        &self,
        backup: &Backup,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), BackupError> {
        let intact = self.verify_files(std::slice::from_ref(backup), progress)?;
        match intact.problems.into_iter().next() {
            None => Ok(()),
            Some(problem) => Err(BackupError::damaged(
                self.dir.join(&problem.name),
                problem.what,
            )),
        }
    }

    /// Copies what is kept of a file, zeros behind it, and syncs.
    fn copy(
        &self,
        kept: &KeptFile,
        to: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), BackupError> {
        let from = self.path(&kept.file.id);
        let source = self
            .vfs
            .open(&from)
            .map_err(BackupError::io("opening", &from))?;
        let target = self.vfs.create(to).map_err(BackupError::io("making", to))?;
        let written = || BackupError::io("writing", to);
        target.allocate(kept.file.size).map_err(written())?;
        let mut crc = Crc32c::new();
        let mut piece = Vec::new();
        let mut at = 0;
        while at < kept.file.size {
            let is_kept = at < kept.file.len;
            let end = if is_kept {
                kept.file.len
            } else {
                kept.file.size
            };
            let len = (end - at).min(PIECE_BYTES);
            piece.clear();
            piece.resize(usize::try_from(len).expect("at most a piece"), 0);
            if is_kept {
                source
                    .read_exact_at(&mut piece, at)
                    .map_err(BackupError::io("reading", &from))?;
                crc.update(&piece);
                progress(at + len);
            }
            target.write_all_at(&piece, at).map_err(written())?;
            at += len;
        }
        if crc.value() != kept.crc {
            return Err(BackupError::damaged(from, "it changed while it was copied"));
        }
        target.sync().map_err(BackupError::io("syncing", to))
    }

    /// Makes the indexes of full segments, chained as the store chains them.
    fn write_indexes(
        &self,
        folder: &Folder,
        segments: &[Arc<Segment>],
    ) -> Result<u64, BackupError> {
        let mut last_of: HashMap<QueueId, u64> = HashMap::new();
        let mut made = 0;
        let Some((_, full)) = segments.split_last() else {
            return Ok(0);
        };
        for segment in full {
            // One whose header page is damaged has no index; the check in the end names it, as it
            // does the ranges that have no header.
            let (Ok((mut memory, _)), Ok(nonce)) = (rebuild_index(segment), segment.nonce()) else {
                continue;
            };
            let queues: Vec<_> = memory
                .runs_from(QueueId(0))
                .map(|(queue, _)| queue)
                .collect();
            for queue in queues {
                let before = last_of.insert(queue, segment.base());
                memory.set_previous(queue, before.unwrap_or(NO_SEGMENT));
            }
            let name = file_name(segment.base(), QUEUE_INDEX);
            write_durably(
                self.vfs.as_ref(),
                &folder.log,
                &name,
                &encode_qix(&memory, nonce),
            )
            .map_err(BackupError::io("writing", folder.log.join(&name)))?;
            made += 1;
        }
        Ok(made)
    }
}
