//! Finding what a folder holds without touching it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::CheckError;
use crate::error::OpenError;
use crate::folder::{FORMAT_FILE, Folder, LOCK_FILE, SEGMENT, parse_file_name};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::vfs::{LockGuard, Vfs};

pub(super) fn lock(vfs: &dyn Vfs, dir: &Path) -> Result<(Folder, Option<LockGuard>), CheckError> {
    let folder = Folder::at(dir);
    let names = names(vfs, dir)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    if !has(FORMAT_FILE) && self::names(vfs, &folder.log)?.is_empty() {
        return Err(CheckError::NoStore {
            dir: dir.to_owned(),
        });
    }
    let lock = if has(LOCK_FILE) {
        Some(folder.lock(vfs)?)
    } else {
        None
    };
    Ok((folder, lock))
}

/// The names in `dir`; none if it isn't there.
pub(super) fn names(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<String>, OpenError> {
    match vfs.list(dir) {
        Ok(mut names) => {
            names.sort_unstable();
            Ok(names)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(OpenError::io("listing", dir)(error)),
    }
}

/// All segments by rising base. A file's length counts here, not where the next one begins: what
/// is missing between two shows that way.
pub(super) fn segments(
    vfs: &Arc<dyn Vfs>,
    folder: &Folder,
) -> Result<Vec<Arc<Segment>>, CheckError> {
    let mut segments = Vec::new();
    for name in names(vfs.as_ref(), &folder.log)? {
        let Some((base, SEGMENT)) = parse_file_name(&name) else {
            continue;
        };
        let path = folder.log.join(&name);
        let size = vfs
            .open(&path)
            .and_then(|file| file.size())
            .map_err(OpenError::io("opening", &path))?;
        segments.push(Arc::new(Segment::new(vfs.clone(), path, base, size)));
    }
    Ok(segments)
}

/// The header page of a segment, or what is wrong with it.
pub(super) fn header_of(segment: &Segment, vfs: &dyn Vfs) -> Result<SegmentHeader, String> {
    if let Some(header) = segment.mended_header() {
        return Ok(header);
    }
    let mut page = [0; SEGMENT_HEADER_BYTES];
    let read = vfs
        .open(segment.path())
        .and_then(|file| file.read_exact_at(&mut page, 0));
    if let Err(error) = read {
        return Err(format!("its header can't be read: {error}"));
    }
    let header = SegmentHeader::decode(&page).map_err(|error| error.to_string())?;
    if header.base.0 != segment.base() {
        return Err(format!(
            "its header says base {}, its name {}",
            header.base,
            segment.base()
        ));
    }
    if header.size != segment.size() {
        return Err(format!(
            "its header says {} bytes, the file has {}",
            header.size,
            segment.size()
        ));
    }
    Ok(header)
}
