//! A folder of backups: what is in it, and taking something out.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_model::FileId;

use super::error::{BACKUP_VERSION, BackupError};
use super::manifest::{Backup, MANIFEST_BYTES_MAX, NODE_BYTES_MAX};
use crate::folder::{
    FORMAT_FILE, LOCK_FILE, TEMPORARY, file_name, parse_file_name, read_whole, sync_names,
    write_durably,
};
use crate::vfs::{LockGuard, Vfs};

pub(super) const BACKUP: &str = "backup";
const FORMAT_WORDS: &str = "tidegate backup format ";
const NODE_WORD: &str = "node ";
/// A format file is two short lines.
const FORMAT_FILE_BYTES_MAX: u64 = 64 + NODE_BYTES_MAX as u64;

/// A folder of backups of one node; locked for as long as this lives.
pub struct BackupFolder {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) dir: PathBuf,
    node: String,
    _lock: LockGuard,
}

/// A backup that is in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub number: u64,
    /// What it is, or what is wrong with its manifest.
    pub backup: Result<Backup, String>,
}

/// What was taken out of a folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files, the manifest not counted.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// A backup whose manifest is damaged may need any file, so none was removed.
    pub held_by: Option<u64>,
}

impl BackupFolder {
    /// Opens a folder that holds backups, and locks it.
    ///
    /// # Errors
    /// [`BackupError::NoBackups`], [`BackupError::Version`], [`BackupError::InUse`], or those of the
    /// file system.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<Self, BackupError> {
        let node = read_format(vfs.as_ref(), dir)?.ok_or_else(|| BackupError::NoBackups {
            dir: dir.to_owned(),
        })?;
        let lock = lock(vfs.as_ref(), dir)?;
        Ok(Self {
            vfs,
            dir: dir.to_owned(),
            node,
            _lock: lock,
        })
    }

    /// Opens a folder for backups of `node`, and makes it if it isn't there or is empty.
    ///
    /// # Errors
    /// As [`BackupFolder::open`]; [`BackupError::OtherNode`] if it is another's.
    pub fn open_for(vfs: Arc<dyn Vfs>, dir: &Path, node: &str) -> Result<Self, BackupError> {
        if read_format(vfs.as_ref(), dir)?.is_none() {
            create(vfs.as_ref(), dir, node)?;
        }
        let folder = Self::open(vfs, dir)?;
        if folder.node != node {
            return Err(BackupError::OtherNode {
                dir: folder.dir,
                found: folder.node,
                node: node.to_owned(),
            });
        }
        Ok(folder)
    }

    /// The node whose backups it holds, by the pin of its key.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The backups, by rising number. Only complete ones have a manifest.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn list(&self) -> Result<Vec<Listed>, BackupError> {
        let mut numbers = BTreeSet::new();
        for name in self.names()? {
            if let Some((number, BACKUP)) = parse_file_name(&name) {
                numbers.insert(number);
            }
        }
        let listed = numbers.into_iter().map(|number| Listed {
            number,
            backup: self.read(number),
        });
        Ok(listed.collect())
    }

    /// The backup of that number, else the newest.
    ///
    /// # Errors
    /// [`BackupError::NoSuchBackup`]; [`BackupError::Damaged`] if its manifest is.
    pub fn find(&self, number: Option<u64>) -> Result<Backup, BackupError> {
        let listed = self.list()?;
        let found = match number {
            Some(number) => listed.into_iter().find(|listed| listed.number == number),
            None => listed.into_iter().next_back(),
        };
        let found = found.ok_or_else(|| BackupError::NoSuchBackup {
            dir: self.dir.clone(),
            what: number.map_or_else(
                || "complete backup".to_owned(),
                |number| format!("backup {number}"),
            ),
        })?;
        let path = self.manifest_path(found.number);
        found
            .backup
            .map_err(|what| BackupError::damaged(path, what))
    }

    /// Removes a backup, and the files that no other one of the folder consists of.
    ///
    /// # Errors
    /// [`BackupError::NoSuchBackup`], or those of the file system.
    pub fn remove(&self, number: u64) -> Result<Removed, BackupError> {
        if !self.list()?.iter().any(|listed| listed.number == number) {
            return Err(BackupError::NoSuchBackup {
                dir: self.dir.clone(),
                what: format!("backup {number}"),
            });
        }
        self.unlink(&file_name(number, BACKUP))?;
        // First durably without its manifest: a backup is there whole or not at all.
        self.sync()?;
        self.sweep()
    }

    /// Removes files that no backup consists of.
    pub(super) fn sweep(&self) -> Result<Removed, BackupError> {
        let mut needed = BTreeSet::new();
        let mut removed = Removed::default();
        for listed in self.list()? {
            match listed.backup {
                Ok(backup) => needed.extend(backup.files.iter().map(|kept| kept.file.id)),
                Err(_) => removed.held_by = Some(listed.number),
            }
        }
        for name in self.names()? {
            let unneeded = match FileId::parse(&name) {
                Some(id) => removed.held_by.is_none() && !needed.contains(&id),
                None => name.ends_with(&format!(".{TEMPORARY}")),
            };
            if unneeded {
                let path = self.dir.join(&name);
                let size = self.vfs.open(&path).and_then(|file| file.size());
                self.unlink(&name)?;
                removed.files += 1;
                removed.bytes += size.unwrap_or(0);
            }
        }
        self.sync()?;
        Ok(removed)
    }

    pub(super) fn names(&self) -> Result<Vec<String>, BackupError> {
        let mut names = self
            .vfs
            .list(&self.dir)
            .map_err(BackupError::io("listing", &self.dir))?;
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn path(&self, id: &FileId) -> PathBuf {
        self.dir.join(id.file_name())
    }

    pub(super) fn manifest_path(&self, number: u64) -> PathBuf {
        self.dir.join(file_name(number, BACKUP))
    }

    pub(super) fn sync(&self) -> Result<(), BackupError> {
        self.vfs
            .sync_dir(&self.dir)
            .map_err(BackupError::io("syncing", &self.dir))
    }

    fn unlink(&self, name: &str) -> Result<(), BackupError> {
        let path = self.dir.join(name);
        self.vfs
            .unlink(&path)
            .map_err(BackupError::io("removing", path))
    }

    fn read(&self, number: u64) -> Result<Backup, String> {
        let path = self.manifest_path(number);
        let bytes = read_whole(self.vfs.as_ref(), &path, MANIFEST_BYTES_MAX)
            .map_err(|error| format!("it can't be read: {error}"))?;
        let backup = Backup::decode(&bytes).map_err(|error| error.to_string())?;
        if backup.number != number {
            return Err(format!("it is the manifest of backup {}", backup.number));
        }
        Ok(backup)
    }
}

/// The node that a folder's format file names; `None` if there is no such file.
fn read_format(vfs: &dyn Vfs, dir: &Path) -> Result<Option<String>, BackupError> {
    let path = dir.join(FORMAT_FILE);
    let bytes = match read_whole(vfs, &path, FORMAT_FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // It is a file, or below one.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(BackupError::io("opening", dir)(error));
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(BackupError::NoBackups {
                dir: dir.to_owned(),
            });
        }
        Err(error) => return Err(BackupError::io("reading", path)(error)),
    };
    let foreign = || BackupError::NoBackups {
        dir: dir.to_owned(),
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| foreign())?;
    let mut lines = text.lines();
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix(FORMAT_WORDS));
    let found: u32 = version
        .and_then(|version| version.parse().ok())
        .ok_or_else(foreign)?;
    if found != BACKUP_VERSION {
        return Err(BackupError::Version {
            dir: dir.to_owned(),
            found,
        });
    }
    let node = lines.next().and_then(|line| line.strip_prefix(NODE_WORD));
    let node = node.ok_or_else(|| BackupError::damaged(&path, "it names no node"))?;
    if text != format_text(node) {
        return Err(BackupError::damaged(path, "it isn't as it was written"));
    }
    Ok(Some(node.to_owned()))
}

fn format_text(node: &str) -> String {
    format!("{FORMAT_WORDS}{BACKUP_VERSION}\n{NODE_WORD}{node}\n")
}

fn lock(vfs: &dyn Vfs, dir: &Path) -> Result<LockGuard, BackupError> {
    let path = dir.join(LOCK_FILE);
    vfs.lock(&path)
        .map_err(BackupError::io("locking", path))?
        .ok_or_else(|| BackupError::InUse {
            dir: dir.to_owned(),
        })
}

fn create(vfs: &dyn Vfs, dir: &Path, node: &str) -> Result<(), BackupError> {
    if node.len() > NODE_BYTES_MAX || node.contains('\n') {
        return Err(BackupError::Source {
            what: "its pin is no pin".to_owned(),
        });
    }
    vfs.create_dir(dir)
        .map_err(BackupError::io("making", dir))?;
    let names = vfs.list(dir).map_err(BackupError::io("listing", dir))?;
    // What a creation leaves that was interrupted.
    let temporary = format!("{FORMAT_FILE}.{TEMPORARY}");
    if names
        .iter()
        .any(|name| name != LOCK_FILE && *name != temporary)
    {
        return Err(BackupError::NoBackups {
            dir: dir.to_owned(),
        });
    }
    let _lock = lock(vfs, dir)?;
    sync_names(vfs, dir)?;
    write_durably(vfs, dir, FORMAT_FILE, format_text(node).as_bytes())
        .map_err(BackupError::io("writing", dir.join(FORMAT_FILE)))
}
