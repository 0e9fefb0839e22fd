//! Doing what was planned.

use std::sync::Arc;

use bytes::Bytes;

use super::kept::Kept;
use super::{RepairAction, RepairPlan};
use crate::check::index::INDEX_BYTES_MAX;
use crate::check::{CheckError, Offline};
use crate::folder::{QUEUE_INDEX, format_text, parse_file_name, read_whole};
use crate::index::{OpenIndex, Qix, chain_back, encode_qix};
use crate::keys::build_kix;
use crate::recovery::rebuild_index;
use crate::segment::Segment;

impl Offline {
    /// Does what a plan for this folder says, and gives the number of the folder that keeps what was
    /// there before. A repair that was interrupted can be planned and done again.
    ///
    /// # Errors
    /// [`CheckError`] if a file can't be read, written or moved; what was done until then is in the
    /// list.
    pub fn repair(&mut self, plan: &RepairPlan) -> Result<u32, CheckError> {
        self.take_lock()?;
        let mut kept = Kept::begin(self.vfs.as_ref(), &self.folder)?;
        for step in &plan.steps {
            let (file, why) = (step.file.as_str(), step.why.as_str());
            match step.action {
                RepairAction::WriteFormat => kept.replace(file, format_text().as_bytes(), why)?,
                RepairAction::WriteHeader(header) => {
                    kept.write_page(file, &header.encode(), why)?
                }
                RepairAction::MakeIndex => kept.replace(file, &self.queue_index(file)?, why)?,
                RepairAction::MakeKeyIndex => kept.replace(file, &self.key_index(file)?, why)?,
                RepairAction::SetAside => kept.set_aside(file, why)?,
            }
        }
        Ok(kept.number)
    }

    /// The segment of an index file, and all before it.
    fn segments_to(&self, file: &str) -> Result<Vec<Arc<Segment>>, CheckError> {
        let name = file.strip_prefix("log/").and_then(parse_file_name);
        let mut segments = self.segments()?;
        let base = name.map_or(u64::MAX, |(base, _)| base);
        segments.retain(|segment| segment.base() <= base);
        match segments.last() {
            Some(last) if last.base() == base => Ok(segments),
            _ => Err(unreadable(file, "its segment is not there")),
        }
    }

    fn queue_index(&self, file: &str) -> Result<Vec<u8>, CheckError> {
        let segments = self.segments_to(file)?;
        let (segment, earlier) = segments.split_last().expect("one at least");
        // Gaps in it are no news: a start finds them, and verification lists them.
        let made = rebuild_index(segment).and_then(|(index, _)| Ok((index, segment.nonce()?)));
        let (mut index, nonce) = made.map_err(|error| unreadable(file, &error.to_string()))?;
        let bases = earlier.iter().rev().map(|segment| segment.base());
        chain_back(&mut index, bases, |base| {
            let at = earlier.binary_search_by_key(&base, |segment| segment.base());
            self.open_index(&earlier[at.ok()?])
        });
        Ok(encode_qix(&index, nonce))
    }

    fn open_index(&self, segment: &Segment) -> Option<OpenIndex> {
        let path = self.folder.log_file(segment.base(), QUEUE_INDEX);
        let bytes = read_whole(self.vfs.as_ref(), &path, INDEX_BYTES_MAX).ok()?;
        let qix = Qix::decode(Bytes::from(bytes)).ok()?;
        let is_its_own = qix.base() == segment.base() && qix.nonce() == segment.nonce().ok()?;
        is_its_own.then(|| OpenIndex::File(Arc::new(qix)))
    }

    fn key_index(&self, file: &str) -> Result<Bytes, CheckError> {
        let segments = self.segments_to(file)?;
        let segment = segments.last().expect("one at least");
        segment
            .nonce()
            .and_then(|nonce| build_kix(segment, nonce))
            .map_err(|error| unreadable(file, &error.to_string()))
    }
}

fn unreadable(file: &str, what: &str) -> CheckError {
    CheckError::Unreadable {
        name: file.to_owned(),
        what: what.to_owned(),
    }
}
