//! Reading everything.

use std::sync::Arc;

use super::folder::names;
use super::log::LogCheck;
use super::report::{FileKind, FileReport, FileState, Progress, Verified};
use super::snapshots::{self, Snapshots};
use super::{CheckError, Offline};
use crate::error::OpenError;
use crate::folder::{FORMAT_FILE, FORMAT_VERSION};
use crate::segment::Segment;

impl Offline {
    /// Reads every byte that counts: headers, sections, indexes, both snapshot generations. Changes
    /// nothing. `progress` is called now and then, and at the end of each segment.
    ///
    /// # Errors
    /// [`CheckError`] if the folder can't be listed, or holds what only a newer program knows.
    /// Damage, and files that can't be read, are part of the result.
    pub fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<Verified, CheckError> {
        let snapshots = snapshots::check(self.vfs.as_ref(), &self.folder)?;
        self.verify_log(&self.segments()?, snapshots, progress)
    }

    pub(super) fn verify_log(
        &self,
        segments: &[Arc<Segment>],
        snapshots: Snapshots,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Verified, CheckError> {
        let mut files = vec![self.format()?];
        let usable = snapshots.usable().cloned();
        let indexed = usable.as_ref().map_or(0, |m| m.newest_segment.0);
        let mut log = LogCheck::new(
            &self.vfs,
            &self.folder,
            segments,
            snapshots.witness(),
            indexed,
            snapshots.floor(),
        );
        log.run(progress)?;
        if let Some(manifest) = &usable {
            log.losses.end(manifest);
        }
        files.append(&mut log.files);
        if segments.is_empty() && !snapshots.generations.is_empty() {
            files.push(FileReport {
                name: "log/".to_owned(),
                kind: FileKind::Segment,
                bytes: 0,
                state: FileState::Missing {
                    what: "there are snapshots of a log, and no segment of it".to_owned(),
                },
            });
        }
        files.extend(snapshots.files);
        Ok(Verified {
            files,
            damaged: log.damaged,
            lost_seqs: log.losses.seqs,
            lost_offsets: log.losses.offsets,
            more_lost: log.losses.more,
            log: log.extent,
            snapshot: usable.map(|manifest| manifest.generation),
        })
    }

    fn format(&self) -> Result<FileReport, CheckError> {
        let state = match self.folder.check_version(self.vfs.as_ref()) {
            Ok(true) => FileState::Whole,
            Ok(false) => FileState::Missing {
                what: format!("it names the format's version, {FORMAT_VERSION}"),
            },
            Err(error @ OpenError::Version { .. }) => return Err(error.into()),
            Err(OpenError::Corrupt { what, .. }) => FileState::Damaged { what },
            Err(error) => FileState::Damaged {
                what: error.to_string(),
            },
        };
        let there = names(self.vfs.as_ref(), &self.folder.root)?
            .iter()
            .any(|name| name == FORMAT_FILE);
        let path = self.folder.root.join(FORMAT_FILE);
        let size = there.then(|| self.vfs.open(&path).and_then(|file| file.size()));
        Ok(FileReport {
            name: FORMAT_FILE.to_owned(),
            kind: FileKind::Format,
            bytes: size.and_then(Result::ok).unwrap_or(0),
            state,
        })
    }
}
