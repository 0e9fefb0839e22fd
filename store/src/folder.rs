//! The data folder: its version, its lock, and its names: fixed words and numbers.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::OpenError;
use crate::vfs::{LockGuard, Vfs};

/// Version of everything in the folder.
pub const FORMAT_VERSION: u32 = 2;

pub(crate) const FORMAT_FILE: &str = "FORMAT";
pub(crate) const LOCK_FILE: &str = "LOCK";
const FORMAT_WORDS: &str = "tidegate store format ";
/// A format file is one short line; a longer one is no format file.
const FORMAT_FILE_BYTES_MAX: u64 = 64;

pub(crate) const SEGMENT: &str = "seg";
pub(crate) const QUEUE_INDEX: &str = "qix";
pub(crate) const KEY_INDEX: &str = "kix";
pub(crate) const MANIFEST: &str = "manifest";
pub(crate) const PART: &str = "part";
pub(crate) const TEMPORARY: &str = "tmp";
/// Name of the space reserve, in the log's folder.
pub(crate) const RESERVE: &str = "RESERVE";

/// Paths in a data folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) root: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) snapshot: PathBuf,
}

impl Folder {
    /// Locks `root`, checks its version, makes it a data folder if it is new.
    pub(crate) fn open(vfs: &dyn Vfs, root: &Path) -> Result<(Self, LockGuard), OpenError> {
        let folder = Self::at(root);
        vfs.create_dir(root)
            .map_err(OpenError::io("creating", root))?;
        let guard = folder.lock(vfs)?;
        if !folder.check_version(vfs)? {
            folder.create(vfs)?;
        }
        Ok((folder, guard))
    }

    /// The paths of a data folder in `root`, be it there or not.
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            log: root.join("log"),
            snapshot: root.join("snapshot"),
        }
    }

    /// Takes the folder's lock; its file is made if it isn't there.
    pub(crate) fn lock(&self, vfs: &dyn Vfs) -> Result<LockGuard, OpenError> {
        let lock = self.root.join(LOCK_FILE);
        vfs.lock(&lock)
            .map_err(OpenError::io("locking", &lock))?
            .ok_or_else(|| OpenError::InUse {
                dir: self.root.clone(),
            })
    }

    /// Whether it says that it has the version of this program; `false` if it says nothing.
    pub(crate) fn check_version(&self, vfs: &dyn Vfs) -> Result<bool, OpenError> {
        let path = self.root.join(FORMAT_FILE);
        let corrupt = |what: &str| OpenError::Corrupt {
            path: path.clone(),
            what: what.to_owned(),
        };
        let file = match vfs.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(OpenError::io("opening", &path)(error)),
        };
        let size = file.size().map_err(OpenError::io("reading", &path))?;
        if size > FORMAT_FILE_BYTES_MAX {
            return Err(corrupt("it is too long for a format file"));
        }
        let mut text = vec![0; usize::try_from(size).expect("at most 64")];
        file.read_exact_at(&mut text, 0)
            .map_err(OpenError::io("reading", &path))?;
        let found = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.strip_prefix(FORMAT_WORDS)?.trim_end().parse().ok())
            .ok_or_else(|| corrupt("it does not name a format version"))?;
        if found != FORMAT_VERSION {
            return Err(OpenError::version(&self.root, found));
        }
        Ok(true)
    }

    /// Names the version of a folder whose log and snapshots are there and durable.
    pub(crate) fn write_version(&self, vfs: &dyn Vfs) -> Result<(), OpenError> {
        let path = self.root.join(FORMAT_FILE);
        write_durably(vfs, &self.root, FORMAT_FILE, format_text().as_bytes())
            .map_err(OpenError::io("writing", &path))
    }

    fn create(&self, vfs: &dyn Vfs) -> Result<(), OpenError> {
        let path = self.root.join(FORMAT_FILE);
        for dir in [&self.log, &self.snapshot] {
            vfs.create_dir(dir)
                .map_err(OpenError::io("creating", dir))?;
            let names = vfs.list(dir).map_err(OpenError::io("listing", dir))?;
            if !names.is_empty() {
                return Err(OpenError::Corrupt {
                    path,
                    what: "it is missing although the folder holds a log".to_owned(),
                });
            }
        }
        // The version is there only where the folders durably are: from then on nobody makes them.
        sync_names(vfs, &self.root)?;
        self.write_version(vfs)
    }

    pub(crate) fn log_file(&self, number: u64, extension: &str) -> PathBuf {
        self.log.join(file_name(number, extension))
    }

    pub(crate) fn snapshot_file(&self, number: u64, extension: &str) -> PathBuf {
        self.snapshot.join(file_name(number, extension))
    }
}

/// Makes the names in `root` durable, and those of all folders that it lies in: any of them may be
/// as new.
pub(crate) fn sync_names(vfs: &dyn Vfs, root: &Path) -> Result<(), OpenError> {
    for dir in root.ancestors() {
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        match vfs.sync_dir(dir) {
            Ok(()) => {}
            // We can open what we made, so this one, and all above it, were there before.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            Err(error) => return Err(OpenError::io("syncing", dir)(error)),
        }
    }
    Ok(())
}

/// What the format file says.
pub(crate) fn format_text() -> String {
    format!("{FORMAT_WORDS}{FORMAT_VERSION}\n")
}

pub(crate) fn file_name(number: u64, extension: &str) -> String {
    format!("{number:020}.{extension}")
}

/// Number and extension of a name that [`file_name`] made.
pub(crate) fn parse_file_name(name: &str) -> Option<(u64, &str)> {
    let (number, extension) = name.split_once('.')?;
    if number.len() != 20 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, extension))
}

/// Writes a file that is there whole or not at all, and durable on return.
pub(crate) fn write_durably(vfs: &dyn Vfs, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.{TEMPORARY}"));
    let written = write_temporary(vfs, &temporary, bytes)
        .and_then(|()| vfs.rename(&temporary, &dir.join(name)));
    if let Err(error) = written {
        // What is left of it is removed at the next start if it can't be now.
        let _ = vfs.unlink(&temporary);
        return Err(error);
    }
    vfs.sync_dir(dir)
}

pub(crate) fn write_temporary(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = vfs.create(path)?;
    file.write_all_at(bytes, 0)?;
    file.sync()
}

/// Like [`read_whole`], from the disk and not from what is cached of it, as far as the system lets
/// one choose.
pub(crate) fn read_back(vfs: &dyn Vfs, path: &Path, max: u64) -> io::Result<Vec<u8>> {
    vfs.open(path)?.drop_cache()?;
    read_whole(vfs, path, max)
}

/// Reads a whole file of exactly `len` bytes, or of any up to `max`.
pub(crate) fn read_whole(vfs: &dyn Vfs, path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = vfs.open(path)?;
    let size = file.size()?;
    if size > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{size} bytes are more than the {max} expected"),
        ));
    }
    let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
