//! Making a backup: what is there already, what comes in, and the manifest in the end.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_model::backup::{BackupFile, FILES_MAX, FileId};
use tidegate_model::checksum::Crc32c;

use super::error::BackupError;
use super::folder::{BACKUP, BackupFolder};
use super::intact::{Checked, Claims, check, crc_of, known_damage};
use super::manifest::{Backup, DAMAGED_MAX, KeptFile};
use crate::batch::Kind;
use crate::check::Progress;
use crate::folder::{TEMPORARY, file_name, parse_file_name, write_durably};
use crate::position::LogPosition;
use crate::recovery::Scanner;
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::snapshot::Manifest;
use crate::vfs::{Vfs, VfsFile};

/// A backup being made.
pub struct Receiving<'a> {
    folder: &'a BackupFolder,
    number: u64,
    /// What is there of each file, checked.
    there: HashMap<FileId, There>,
    kept: Vec<KeptFile>,
    fetched: u64,
    /// Ranges that were damaged when an earlier backup fetched them, in files that this one keeps.
    damaged: Vec<(LogPosition, LogPosition)>,
}

/// The first bytes of a file, checked.
struct There {
    len: u64,
    crc: Crc32c,
    /// Whether a complete backup has the same bytes, so that they are durable.
    durable: bool,
    /// A later part of it is damaged, or its bytes are another file's: it is written anew.
    replace: bool,
    /// Ranges of it that were damaged when they were fetched, and still are.
    damaged: Vec<(u64, u64)>,
}

/// A file that comes in.
pub struct Incoming<'a> {
    folder: &'a BackupFolder,
    file: BackupFile,
    to: Arc<dyn VfsFile>,
    /// It gets its name when it is whole.
    temporary: Option<PathBuf>,
    at: u64,
    crc: Crc32c,
    fetched: u64,
}

impl BackupFolder {
    /// Begins a backup: reads and checks what earlier ones left, complete or not. `progress` is
    /// called now and then.
    ///
    /// # Errors
    /// Those of the file system, but for files that can't be read: those come anew.
    pub fn receive(
        &self,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Receiving<'_>, BackupError> {
        let listed = self.list()?;
        let number = listed.last().map_or(1, |last| last.number + 1);
        let backups: Vec<Backup> = listed
            .into_iter()
            .filter_map(|listed| listed.backup.ok())
            .collect();
        let claims = Claims::of(&backups);
        let mut damaged = known_damage(&backups);
        let mut files = Vec::new();
        let mut of = 0;
        for name in self.names()? {
            let Some(id) = FileId::parse(&name) else {
                continue;
            };
            let Ok(file) = self.vfs.open(&self.dir.join(&name)) else {
                continue;
            };
            let size = file.size().unwrap_or(0);
            of += size;
            files.push((id, file, size));
        }
        let mut there = HashMap::new();
        let mut done = 0;
        for (id, file, size) in files {
            let mut tell = |bytes| {
                progress(Progress {
                    done: done + bytes,
                    of,
                });
            };
            let none = super::intact::Lens::new();
            let lens = claims.0.get(&id).unwrap_or(&none);
            let mut found = self.find_there(id, file.as_ref(), size, lens, &mut tell);
            if let (FileId::Segment { base, nonce }, Some(ranges)) = (id, damaged.remove(&id))
                && !valid_len(&self.vfs, self.path(&id), base, nonce, 0).reaches(found.len)
            {
                found.damaged = ranges;
            }
            there.insert(id, found);
            done += size;
        }
        Ok(Receiving {
            folder: self,
            number,
            there,
            kept: Vec::new(),
            fetched: 0,
            damaged: Vec::new(),
        })
    }

    /// How far a file is what backups say, or a segment's batches.
    fn find_there(
        &self,
        id: FileId,
        file: &dyn VfsFile,
        size: u64,
        lens: &super::intact::Lens,
        progress: &mut dyn FnMut(u64),
    ) -> There {
        let mut checked = Checked::default();
        // What can't be read is fetched anew.
        let _ = check(file, lens, &mut checked, progress);
        let mut there = There {
            len: checked.len,
            crc: checked.crc,
            durable: checked.good > 0,
            replace: checked.good < lens.len(),
            damaged: Vec::new(),
        };
        if there.replace || size <= there.len {
            return there;
        }
        // The rest is what an interrupted backup left.
        let len = match id {
            FileId::Segment { base, nonce } => {
                valid_len(&self.vfs, self.path(&id), base, nonce, there.len).len
            }
            _ => size,
        };
        if len > there.len
            && let Ok(crc) = crc_of(file, there.len..len, there.crc.clone(), progress)
            && id.crc().is_none_or(|whole| whole == crc.value())
            // A component says nothing of its bytes that could be checked here.
            && !matches!(id, FileId::Component { .. })
        {
            there = There {
                len,
                crc,
                durable: false,
                replace: false,
                damaged: Vec::new(),
            };
        }
        there
    }
}

impl Receiving<'_> {
    /// The number that it will have.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that must be fetched for `file`.
    #[must_use]
    pub fn missing(&self, file: &BackupFile) -> u64 {
        match named(&self.there, &file.id) {
            Some(there) if !there.replace => file.len.saturating_sub(there.len),
            _ => file.len,
        }
    }
}

impl<'a> Receiving<'a> {
    /// Takes a file in, as far as it is there. `None` if another backup has all of it; else what is
    /// still to come, which may be nothing, goes from [`Incoming::at`] on.
    ///
    /// # Errors
    /// [`BackupError::Source`] for a file that no data folder has, else those of the file system.
    pub fn want(&mut self, file: BackupFile) -> Result<Option<Incoming<'a>>, BackupError> {
        if !file.is_possible() || self.kept.len() >= FILES_MAX {
            let name = file.id.file_name();
            return Err(BackupError::Source {
                what: format!("{name} with {} of {} bytes", file.len, file.size),
            });
        }
        let there = named(&self.there, &file.id).filter(|there| !there.replace);
        if let (Some(there), FileId::Segment { base, .. }) = (there, file.id)
            && there.len <= file.len
        {
            let reused = there
                .damaged
                .iter()
                .map(|(from, to)| (base + from, base + to));
            let positions = reused.map(|(from, to)| (LogPosition(from), LogPosition(to)));
            self.damaged.extend(positions);
        }
        if let Some(there) = there
            && there.durable
            && there.len == file.len
        {
            let crc = there.crc.value();
            self.kept.push(KeptFile { file, crc });
            return Ok(None);
        }
        let folder = self.folder;
        let path = folder.path(&file.id);
        let io = BackupError::io;
        let usable = there.filter(|there| there.len <= file.len);
        let (to, temporary, at, crc) = match usable {
            Some(there) if there.len > 0 => {
                let to = folder.vfs.open(&path).map_err(io("opening", &path))?;
                (to, None, there.len, there.crc.clone())
            }
            // What an interrupted one brings of a segment is good for the next.
            _ if matches!(file.id, FileId::Segment { .. })
                && self
                    .there
                    .get(&file.id)
                    .is_none_or(|there| !there.replace && !there.durable) =>
            {
                let to = folder.vfs.create(&path).map_err(io("making", &path))?;
                (to, None, 0, Crc32c::new())
            }
            _ => {
                let temporary = path.with_extension(TEMPORARY);
                let to = folder
                    .vfs
                    .create(&temporary)
                    .map_err(io("making", &temporary))?;
                (to, Some(temporary), 0, Crc32c::new())
            }
        };
        Ok(Some(Incoming {
            folder,
            file,
            to,
            temporary,
            at,
            crc,
            fetched: 0,
        }))
    }

    /// Takes a file in that has come whole.
    ///
    /// # Errors
    /// As [`Incoming::write`].
    pub fn take(&mut self, incoming: Incoming<'a>) -> Result<(), BackupError> {
        let fetched = incoming.fetched;
        let kept = incoming.finish()?;
        let is_known_manifest = matches!(kept.file.id, FileId::Manifest { .. })
            && self
                .there
                .get(&kept.file.id)
                .is_some_and(|there| !there.replace);
        if !is_known_manifest {
            self.fetched += fetched;
        }
        self.kept.push(kept);
        Ok(())
    }

    /// Makes the backup complete, and removes what no backup consists of. `backup` says what the
    /// node said; number, files and bytes fetched are filled in, and what was damaged already when
    /// files that it shares were fetched is added.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn complete(self, backup: Backup) -> Result<Backup, BackupError> {
        let folder = self.folder;
        let mut damaged = backup.damaged;
        damaged.extend(self.damaged);
        damaged.sort_unstable();
        damaged.dedup();
        let beyond = damaged.len().saturating_sub(DAMAGED_MAX) as u64;
        damaged.truncate(DAMAGED_MAX);
        let backup = Backup {
            damaged,
            more_damaged: backup.more_damaged + beyond,
            number: self.number,
            node: folder.node().to_owned(),
            fetched: self.fetched,
            files: self.kept,
            ..backup
        };
        // The names of the files hold before the manifest's does.
        folder.sync()?;
        let name = file_name(self.number, BACKUP);
        write_durably(folder.vfs.as_ref(), &folder.dir, &name, &backup.encode())
            .map_err(BackupError::io("writing", folder.dir.join(&name)))?;
        folder.sweep()?;
        debug_assert_eq!(parse_file_name(&name), Some((self.number, BACKUP)));
        Ok(backup)
    }
}

impl Incoming<'_> {
    /// Where the next bytes belong.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &BackupFile {
        &self.file
    }

    /// Writes the next bytes. Waits for the disk.
    ///
    /// # Errors
    /// [`BackupError::Source`] for more than the file has, else those of the file system.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let len = bytes.len() as u64;
        if len > self.file.len - self.at {
            return Err(self.wrong("it came longer than it was announced"));
        }
        self.to
            .write_all_at(bytes, self.at)
            .map_err(BackupError::io("writing", self.path()))?;
        self.crc.update(bytes);
        self.at += len;
        self.fetched += len;
        Ok(())
    }

    fn finish(self) -> Result<KeptFile, BackupError> {
        if self.at != self.file.len {
            return Err(self.wrong("it came shorter than it was announced"));
        }
        let crc = self.crc.value();
        if self.file.id.crc().is_some_and(|whole| whole != crc) {
            return Err(self.wrong("its checksum is not the one that was announced"));
        }
        let mut file = self.file;
        if let FileId::Manifest { generation, .. } = file.id {
            let crc = self.manifest_crc(generation)?;
            file.id = FileId::Manifest { generation, crc };
        }
        let path = self.folder.path(&file.id);
        self.to.sync().map_err(BackupError::io("syncing", &path))?;
        if let Some(temporary) = &self.temporary {
            self.folder
                .vfs
                .rename(temporary, &path)
                .map_err(BackupError::io("renaming", temporary))?;
        }
        Ok(KeptFile { file, crc })
    }

    /// The checksum by which a snapshot's manifest that has come is named.
    fn manifest_crc(&self, generation: u64) -> Result<u32, BackupError> {
        let len = usize::try_from(self.file.len).map_err(|error| self.wrong(&error.to_string()))?;
        let mut bytes = vec![0; len];
        self.to
            .read_exact_at(&mut bytes, 0)
            .map_err(BackupError::io("reading", self.path()))?;
        let manifest = Manifest::decode(&bytes).map_err(|error| self.wrong(&error.to_string()))?;
        if manifest.generation != generation {
            return Err(self.wrong(&format!("it is generation {}", manifest.generation)));
        }
        Ok(Manifest::crc_of(&bytes))
    }

    fn path(&self) -> PathBuf {
        self.folder.path(&self.file.id)
    }

    fn wrong(&self, what: &str) -> BackupError {
        BackupError::Source {
            what: format!("{}: {what}", self.file.id.file_name()),
        }
    }
}

/// What is there of a file that the node names. Its name for a snapshot's manifest doesn't tell one from
/// another, so those always come; they are small.
fn named<'a>(there: &'a HashMap<FileId, There>, id: &FileId) -> Option<&'a There> {
    match id {
        FileId::Manifest { .. } => None,
        _ => there.get(id),
    }
}

/// How far a segment's file holds whole batches.
struct Valid {
    len: u64,
    /// Nothing but zeroes follow.
    is_full: bool,
}

impl Valid {
    fn reaches(&self, len: u64) -> bool {
        self.is_full || self.len >= len
    }
}

/// How far a segment's file holds whole batches, one after another; no less than `from`, up to which
/// it is known to. Checksums seeded with the nonce let no other bytes pass.
fn valid_len(vfs: &Arc<dyn Vfs>, path: PathBuf, base: u64, nonce: u64, from: u64) -> Valid {
    let until = |at: u64, is_full| Valid {
        len: at - base,
        is_full,
    };
    let mut page = [0; SEGMENT_HEADER_BYTES];
    let read = vfs
        .open(&path)
        .and_then(|file| file.read_exact_at(&mut page, 0));
    let header = SegmentHeader::decode(&page)
        .ok()
        .filter(|header| read.is_ok() && header.base.0 == base && header.nonce == nonce);
    let Some(header) = header else {
        return until(base + from, false);
    };
    let segment = Arc::new(Segment::written(vfs.clone(), path, header));
    let Ok(mut scanner) = Scanner::open(segment.clone()) else {
        return until(base + from, false);
    };
    let mut at = segment.first().max(base + from);
    while !segment.is_full_at(at) {
        let Ok(Some(header)) = scanner.header(at) else {
            break;
        };
        if scanner.section(&header).is_none() {
            break;
        }
        at = match header.kind {
            // What it passes over says nothing by which it could be told.
            Kind::Pad => return until(at + crate::header::HEADER_BYTES as u64, true),
            _ => header.end().0,
        };
    }
    until(at, segment.is_full_at(at))
}
