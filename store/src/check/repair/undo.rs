//! Taking a repair back.

use std::path::{Component, Path, PathBuf};

use tidegate_model::checksum::crc32c;

use super::kept::{Change, LIST, LIST_HEAD, move_durably, repair_dir};
use crate::check::index::INDEX_BYTES_MAX;
use crate::check::{CheckError, Offline};
use crate::error::OpenError;
use crate::folder::read_whole;
use crate::segment::SEGMENT_HEADER_BYTES;

/// Bytes of a list: some hundred thousand changes.
const LIST_BYTES_MAX: u64 = 64 << 20;

/// A line of the list.
struct Row {
    change: Change,
    /// Of what the repair wrote.
    crc: u32,
    file: String,
}

impl Offline {
    /// Puts back what a repair changed, the last change first, and names the files. What the repair
    /// made goes into its folder instead. A file that changed since is not touched, and then nothing
    /// is.
    ///
    /// # Errors
    /// [`CheckError::NotUndone`] if there is no such repair, or files changed since; else those of
    /// the file system.
    pub fn undo_repair(&mut self, number: u32) -> Result<Vec<String>, CheckError> {
        self.take_lock()?;
        let dir = repair_dir(&self.folder, number);
        let rows = self.rows(number, &dir)?;
        for row in &rows {
            self.check_undo(number, &dir, row)?;
        }
        let mut undone = Vec::new();
        for row in rows.iter().rev() {
            let path = self.folder.root.join(&row.file);
            let put_back = self.undo(&dir, row);
            if put_back.map_err(OpenError::io("putting back", &path))? {
                undone.push(row.file.clone());
            }
        }
        Ok(undone)
    }

    fn rows(&self, number: u32, dir: &Path) -> Result<Vec<Row>, CheckError> {
        let not_undone = |what: String| CheckError::NotUndone { number, what };
        let bytes = read_whole(self.vfs.as_ref(), &dir.join(LIST), LIST_BYTES_MAX)
            .map_err(|error| not_undone(format!("its list can't be read: {error}")))?;
        let text =
            String::from_utf8(bytes).map_err(|_| not_undone("its list is no text".to_owned()))?;
        let Some(rest) = text
            .strip_prefix(LIST_HEAD)
            .and_then(|t| t.strip_prefix('\n'))
        else {
            return Err(not_undone("its list is of another version".to_owned()));
        };
        // A line without its end was never acted upon.
        let lines = rest
            .split_inclusive('\n')
            .filter_map(|l| l.strip_suffix('\n'));
        lines
            .map(|line| row(line).ok_or_else(|| not_undone(format!("its list says {line:?}"))))
            .collect()
    }

    fn current(&self, path: &Path, change: Change) -> Option<u32> {
        if change == Change::Page {
            let mut page = [0; SEGMENT_HEADER_BYTES];
            let file = self.vfs.open(path).ok()?;
            file.read_exact_at(&mut page, 0).ok()?;
            return Some(crc32c(&page));
        }
        let bytes = read_whole(self.vfs.as_ref(), path, INDEX_BYTES_MAX).ok()?;
        Some(crc32c(&bytes))
    }

    fn check_undo(&self, number: u32, dir: &Path, row: &Row) -> Result<(), CheckError> {
        let path = self.folder.root.join(&row.file);
        let is_there = self.vfs.open(&path).is_ok();
        let is_kept = self.vfs.open(&dir.join(&row.file)).is_ok();
        let is_free = match row.change {
            // Put back already, or never moved.
            _ if is_kept == (row.change == Change::Made) => true,
            Change::Moved => !is_there,
            Change::Replaced => !is_there || self.current(&path, row.change) == Some(row.crc),
            Change::Made => !is_there || self.current(&path, row.change) == Some(row.crc),
            Change::Page => self.current(&path, row.change) == Some(row.crc),
        };
        if is_free {
            return Ok(());
        }
        Err(CheckError::NotUndone {
            number,
            what: format!("{} has changed since", row.file),
        })
    }

    /// Whether there was something to put back.
    fn undo(&self, dir: &Path, row: &Row) -> std::io::Result<bool> {
        let vfs = self.vfs.as_ref();
        let (path, kept) = (self.folder.root.join(&row.file), dir.join(&row.file));
        let (is_there, is_kept) = (vfs.open(&path).is_ok(), vfs.open(&kept).is_ok());
        match row.change {
            Change::Made if is_there && !is_kept => move_durably(vfs, &path, &kept)?,
            Change::Moved | Change::Replaced if is_kept => move_durably(vfs, &kept, &path)?,
            Change::Page if is_kept => {
                let page = read_whole(vfs, &kept, SEGMENT_HEADER_BYTES as u64)?;
                let segment = vfs.open(&path)?;
                segment.write_all_at(&page, 0)?;
                segment.sync()?;
                vfs.unlink(&kept)?;
                vfs.sync_dir(kept.parent().unwrap_or(dir))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn row(line: &str) -> Option<Row> {
    let mut fields = line.split('\t');
    let name = fields.next()?;
    let change = Change::ALL
        .into_iter()
        .find(|change| change.name() == name)?;
    let crc = u32::from_str_radix(fields.next()?, 16).ok()?;
    let file = fields.next()?.to_owned();
    // Nothing outside of the folder is ever touched, whoever wrote the list.
    let path = PathBuf::from(&file);
    let mut parts = path.components();
    let is_inside = parts.all(|part| matches!(part, Component::Normal(_)));
    (is_inside && !file.is_empty()).then_some(Row { change, crc, file })
}
