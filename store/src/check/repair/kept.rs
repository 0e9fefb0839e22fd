//! The folder of a repair: what was there before, and a list of it.
//!
//! `repair-NUMBER/LIST` is text: a line `tidegate repair 1`, then a line for each change, appended
//! and synced before the change: what was done, the checksum of what is there now, the file and the
//! reason, with tabs between. What was there before lies beside it under its own path; of a segment
//! it is the header page alone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_model::checksum::crc32c;

use crate::error::OpenError;
use crate::folder::{Folder, write_durably};
use crate::segment::SEGMENT_HEADER_BYTES;
use crate::vfs::{Vfs, VfsFile};

pub(super) const LIST: &str = "LIST";
pub(super) const LIST_HEAD: &str = "tidegate repair 1";
/// A folder has no more repairs than this.
pub(super) const REPAIRS_MAX: u32 = 10_000;

/// What was done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It lies in the repair's folder.
    Moved,
    /// So does the old one; another one has its place.
    Replaced,
    /// There was none.
    Made,
    /// The header page of a segment was written; the old one lies in the repair's folder.
    Page,
}

impl Change {
    pub(super) const ALL: [Self; 4] = [Self::Moved, Self::Replaced, Self::Made, Self::Page];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Replaced => "replaced",
            Self::Made => "made",
            Self::Page => "page",
        }
    }
}

pub(super) struct Kept<'a> {
    vfs: &'a dyn Vfs,
    folder: &'a Folder,
    pub(super) number: u32,
    dir: PathBuf,
    list: Arc<dyn VfsFile>,
    /// End of the list.
    at: u64,
}

/// The folder of a repair.
pub(super) fn repair_dir(folder: &Folder, number: u32) -> PathBuf {
    folder.root.join(format!("repair-{number}"))
}

impl<'a> Kept<'a> {
    /// Makes the folder of the next repair, durable with its list on return.
    pub(super) fn begin(vfs: &'a dyn Vfs, folder: &'a Folder) -> Result<Self, OpenError> {
        let mut number = 1;
        while number < REPAIRS_MAX && vfs.open(&repair_dir(folder, number).join(LIST)).is_ok() {
            number += 1;
        }
        let dir = repair_dir(folder, number);
        let made = Self::make(vfs, folder, &dir).map_err(OpenError::io("making", &dir))?;
        let (list, at) = made;
        Ok(Self {
            vfs,
            folder,
            number,
            dir,
            list,
            at,
        })
    }

    fn make(vfs: &dyn Vfs, folder: &Folder, dir: &Path) -> io::Result<(Arc<dyn VfsFile>, u64)> {
        for name in ["log", "snapshot"] {
            vfs.create_dir(&dir.join(name))?;
        }
        let list = vfs.create(&dir.join(LIST))?;
        let head = format!("{LIST_HEAD}\n");
        list.write_all_at(head.as_bytes(), 0)?;
        list.sync()?;
        vfs.sync_dir(dir)?;
        vfs.sync_dir(&folder.root)?;
        Ok((list, head.len() as u64))
    }

    fn note(&mut self, change: Change, crc: u32, file: &str, why: &str) -> io::Result<()> {
        let why = why.replace(['\t', '\n'], " ");
        let row = format!("{}\t{crc:08x}\t{file}\t{why}\n", change.name());
        self.list.write_all_at(row.as_bytes(), self.at)?;
        self.list.sync()?;
        self.at += row.len() as u64;
        Ok(())
    }

    /// Moves `file`, a path in the folder, here.
    pub(super) fn set_aside(&mut self, file: &str, why: &str) -> Result<(), OpenError> {
        let path = self.folder.root.join(file);
        self.note(Change::Moved, 0, file, why)
            .and_then(|()| self.move_here(file, &path))
            .map_err(OpenError::io("setting aside", &path))
    }

    /// Puts `bytes` in the place of `file`, if there is one.
    pub(super) fn replace(&mut self, file: &str, bytes: &[u8], why: &str) -> Result<(), OpenError> {
        let path = self.folder.root.join(file);
        self.try_replace(file, &path, bytes, why)
            .map_err(OpenError::io("replacing", &path))
    }

    fn try_replace(&mut self, file: &str, path: &Path, bytes: &[u8], why: &str) -> io::Result<()> {
        let is_there = self.vfs.open(path).is_ok();
        let change = if is_there {
            Change::Replaced
        } else {
            Change::Made
        };
        self.note(change, crc32c(bytes), file, why)?;
        if is_there {
            self.move_here(file, path)?;
        }
        let (dir, name) = (
            path.parent(),
            path.file_name().and_then(|name| name.to_str()),
        );
        let (Some(dir), Some(name)) = (dir, name) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        write_durably(self.vfs, dir, name, bytes)
    }

    /// Writes the header page of the segment `file`.
    pub(super) fn write_page(
        &mut self,
        file: &str,
        page: &[u8; SEGMENT_HEADER_BYTES],
        why: &str,
    ) -> Result<(), OpenError> {
        let path = self.folder.root.join(file);
        self.try_write_page(file, &path, page, why)
            .map_err(OpenError::io("writing the header page of", &path))
    }

    fn try_write_page(
        &mut self,
        file: &str,
        path: &Path,
        page: &[u8; SEGMENT_HEADER_BYTES],
        why: &str,
    ) -> io::Result<()> {
        let segment = self.vfs.open(path)?;
        let mut old = [0; SEGMENT_HEADER_BYTES];
        // One that can't be read can't be kept.
        if segment.read_exact_at(&mut old, 0).is_ok() {
            let kept = self.dir.join(file);
            let copy = self.vfs.create(&kept)?;
            copy.write_all_at(&old, 0)?;
            copy.sync()?;
            self.vfs.sync_dir(kept.parent().unwrap_or(&self.dir))?;
        }
        self.note(Change::Page, crc32c(page), file, why)?;
        segment.write_all_at(page, 0)?;
        segment.sync()
    }

    fn move_here(&self, file: &str, path: &Path) -> io::Result<()> {
        move_durably(self.vfs, path, &self.dir.join(file))
    }
}

/// Renames a file between two folders of the data folder, durable on return.
pub(super) fn move_durably(vfs: &dyn Vfs, from: &Path, to: &Path) -> io::Result<()> {
    vfs.rename(from, to)?;
    for path in [to, from] {
        vfs.sync_dir(path.parent().unwrap_or(path))?;
    }
    Ok(())
}
