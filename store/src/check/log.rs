//! The whole log, segment by segment, with the rules that recovery has.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate_model::ShardId;

use super::CheckError;
use super::folder::header_of;
use super::index::{check_keys, compare};
use super::losses::Losses;
use super::pass::{Pass, Piece};
use super::report::{Damage, FileKind, FileReport, FileState, LogExtent, Progress};
use crate::batch::Kind;
use crate::folder::{Folder, KEY_INDEX, QUEUE_INDEX, SEGMENT, file_name};
use crate::header::{BatchHeader, HeaderError};
use crate::index::{Entry, MemoryIndex, NO_SEGMENT};
use crate::position::LogPosition;
use crate::recovery::{Tails, may_follow};
use crate::segment::{CLASS_LOG, Segment};
use crate::vfs::Vfs;

pub(super) const BAD_BATCH: &str = "no valid batch begins here";
pub(super) const BAD_SECTION: &str = "the section's checksum is wrong";
const BAD_ORDER: &str = "the batch can't follow the one before it in its shard";

pub(super) struct LogCheck<'a> {
    vfs: &'a Arc<dyn Vfs>,
    folder: &'a Folder,
    segments: &'a [Arc<Segment>],
    /// All below this was durable, whatever is there now.
    witness: u64,
    /// Sealed segments below this one have their index durable.
    indexed: u64,
    /// Segments below this one may have been removed.
    floor: u64,
    log_epoch: u32,
    tails: Tails,
    /// Something is damaged, so that batches may be missing …
    gaps: bool,
    /// … but not of these shards, of which one came since.
    dense: BTreeSet<ShardId>,
    unit: Option<Unit>,
    /// The segment before, until it is known whether the log goes on behind it.
    sealed: Option<Sealed>,
    done: u64,
    of: u64,
    pub(super) files: Vec<FileReport>,
    pub(super) damaged: Vec<Damage>,
    pub(super) losses: Losses,
    pub(super) extent: LogExtent,
}

/// A unit whose end has not come yet.
struct Unit {
    shard: ShardId,
    first: u64,
    batches: u64,
}

/// What a segment holds, to compare its index with.
struct Sealed {
    base: u64,
    nonce: u64,
    memory: MemoryIndex,
    damaged: bool,
    /// It must have its index; else a start, or the first reader, makes it.
    is_indexed: bool,
}

impl<'a> LogCheck<'a> {
    pub(super) fn new(
        vfs: &'a Arc<dyn Vfs>,
        folder: &'a Folder,
        segments: &'a [Arc<Segment>],
        witness: u64,
        indexed: u64,
        floor: u64,
    ) -> Self {
        let first = segments.first().map_or(0, |segment| segment.base());
        Self {
            vfs,
            folder,
            segments,
            witness,
            indexed,
            floor,
            log_epoch: 0,
            tails: Tails::new(),
            gaps: first > 0,
            dense: BTreeSet::new(),
            unit: None,
            sealed: None,
            done: 0,
            of: segments.iter().map(|segment| segment.size()).sum(),
            files: Vec::new(),
            damaged: Vec::new(),
            losses: Losses::new(first == 0),
            extent: LogExtent {
                first: LogPosition(first),
                end: LogPosition(first),
                is_complete: first == 0,
                ..LogExtent::default()
            },
        }
    }

    /// Reads all of it.
    pub(super) fn run(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), CheckError> {
        let mut ended = false;
        for number in 0..self.segments.len() {
            let segment = self.segments[number].clone();
            self.missing_before(number);
            let damaged_before = self.damaged.len();
            let header = header_of(&segment, self.vfs.as_ref());
            let state = match &header {
                Err(what) if ended => {
                    // A segment that was prepared and never used; a start makes it anew.
                    tracing::debug!(%what, base = segment.base(), "an unused segment");
                    FileState::Unused
                }
                Err(what) => {
                    self.bad(&segment, segment.base(), segment.end(), None, BAD_BATCH);
                    FileState::Damaged { what: what.clone() }
                }
                Ok(_) if ended => FileState::Unused,
                Ok(header) => {
                    if header.class == CLASS_LOG {
                        ended = self.segment(number, header.nonce, progress)?;
                    } else {
                        self.rewritten(&segment, header.nonce)?;
                    }
                    match self.damaged.len() - damaged_before {
                        0 => FileState::Whole,
                        ranges => FileState::Damaged {
                            what: format!("{ranges} damaged ranges"),
                        },
                    }
                }
            };
            self.files.push(FileReport {
                name: name_of(segment.base(), SEGMENT),
                kind: FileKind::Segment,
                bytes: segment.size(),
                state,
            });
            self.done += segment.size();
            progress(Progress {
                done: self.done,
                of: self.of,
            });
        }
        self.check_index(false);
        if let Some(unit) = self.unit.take() {
            self.cut_at(unit.first);
        }
        Ok(())
    }

    /// A place between two segments that no file covers.
    fn missing_before(&mut self, number: usize) {
        let Some(before) = number.checked_sub(1).map(|before| &self.segments[before]) else {
            return;
        };
        let base = self.segments[number].base();
        if before.end() >= base {
            return;
        }
        self.extent.is_complete = false;
        if base > self.floor {
            self.files.push(FileReport {
                name: name_of(before.end(), SEGMENT),
                kind: FileKind::Segment,
                bytes: 0,
                state: FileState::Missing {
                    what: format!("the log goes on at {base} only"),
                },
            });
            self.may_miss();
        } else {
            self.passes_dead();
        }
    }

    /// What was dead may be gone from here; numbers and offsets that are missing are no loss.
    fn passes_dead(&mut self) {
        self.may_miss();
        self.losses.forget();
    }

    /// Reads a segment that was rewritten: it has what was live, and nothing of it is torn.
    fn rewritten(&mut self, segment: &Arc<Segment>, nonce: u64) -> Result<(), CheckError> {
        self.extent.is_complete = false;
        self.passes_dead();
        self.check_index(true);
        let mut memory = MemoryIndex::new(segment.base());
        let mut damaged = false;
        let mut pass = open(segment, 0)?;
        while let Some(piece) = pass.next().map_err(|error| newer(segment, &error))? {
            match piece {
                Piece::Batch(batch) if batch.header.kind.is_local() => {}
                Piece::Batch(batch) => {
                    let header = &batch.header;
                    self.tails.insert(header.shard, (header.term, header.seq.0));
                    put(&mut memory, header, segment.base());
                    self.extent.batches += 1;
                }
                Piece::Bad { from, to, header } => {
                    damaged = true;
                    if let Some(header) = header.filter(|header| !header.kind.is_local()) {
                        put(&mut memory, &header, segment.base());
                    }
                    let what = header.map_or(BAD_BATCH, |_| BAD_SECTION);
                    self.bad(segment, from, to, header.as_ref(), what);
                }
            }
        }
        self.extent.end = LogPosition(segment.end());
        self.passes_dead();
        self.seal(Sealed {
            base: segment.base(),
            nonce,
            memory,
            damaged,
            is_indexed: false,
        });
        Ok(())
    }

    /// Reads a segment; says whether the log ends in it.
    fn segment(
        &mut self,
        number: usize,
        nonce: u64,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<bool, CheckError> {
        let segment = self.segments[number].clone();
        let mut memory = MemoryIndex::new(segment.base());
        let mut damaged = false;
        let mut pass = open(&segment, self.log_epoch)?;
        let newer = |error: HeaderError| newer(&segment, &error);
        let mut told = 0;
        while let Some(piece) = pass.next().map_err(newer)? {
            let read = pass.at() - segment.base();
            if read - told >= PROGRESS_BYTES {
                told = read;
                let done = self.done + read;
                progress(Progress { done, of: self.of });
            }
            match piece {
                Piece::Batch(batch) if self.fits(&batch.header) => {
                    self.batch(&batch.header, &mut memory);
                }
                piece => {
                    let (from, to, header, what) = match piece {
                        Piece::Batch(batch) => {
                            let header = batch.header;
                            (header.position.0, header.end().0, None, BAD_ORDER)
                        }
                        Piece::Bad { from, to, header } => {
                            let what = header.map_or(BAD_BATCH, |_| BAD_SECTION);
                            (from, to, header, what)
                        }
                    };
                    if from >= self.witness && !self.goes_on_after(number, from, pass.at())? {
                        self.end_at(number, from).map_err(newer)?;
                        self.seal(Sealed {
                            base: segment.base(),
                            nonce,
                            memory,
                            damaged,
                            is_indexed: false,
                        });
                        return Ok(true);
                    }
                    damaged = true;
                    if let Some(header) = &header
                        && !header.kind.is_local()
                    {
                        put(&mut memory, header, segment.base());
                    }
                    self.bad(&segment, from, to, header.as_ref(), what);
                }
            }
        }
        self.seal(Sealed {
            base: segment.base(),
            nonce,
            memory,
            damaged,
            is_indexed: segment.base() < self.indexed,
        });
        Ok(false)
    }

    /// Whether a batch may come here by its shard's numbers and its unit.
    fn fits(&self, header: &BatchHeader) -> bool {
        if header.kind.is_local() {
            return true;
        }
        if self
            .unit
            .as_ref()
            .is_some_and(|unit| unit.shard != header.shard)
        {
            return false;
        }
        let last = self.tails.get(&header.shard).copied().unwrap_or_default();
        let gap = self.gaps && !self.dense.contains(&header.shard);
        may_follow(last, (header.term, header.seq.0), gap)
    }

    /// From here on batches of any shard may be missing, and the rest of a unit.
    fn may_miss(&mut self) {
        self.gaps = true;
        self.dense.clear();
        if let Some(unit) = self.unit.take() {
            self.extent.batches += unit.batches;
        }
    }

    fn batch(&mut self, header: &BatchHeader, memory: &mut MemoryIndex) {
        self.log_epoch = header.log_epoch;
        self.extent.log_epoch = header.log_epoch;
        if header.kind.is_local() {
            if self.unit.is_none() {
                self.extent.end = header.end();
            }
            if header.kind == Kind::Pad {
                self.extent.end = LogPosition(self.segment_of(header.position.0).end());
            }
            return;
        }
        self.check_index(true);
        if let Some(what) = self.losses.contradiction(header, self.gaps) {
            let segment = self.segment_of(header.position.0);
            self.note(&segment, header.position.0, header.end().0, what);
        }
        self.losses.saw(header);
        self.dense.insert(header.shard);
        self.tails.insert(header.shard, (header.term, header.seq.0));
        put(memory, header, memory.base());
        let unit = self.unit.get_or_insert(Unit {
            shard: header.shard,
            first: header.position.0,
            batches: 0,
        });
        unit.batches += 1;
        if !header.has_more() {
            self.extent.batches += unit.batches;
            self.extent.end = header.end();
            self.unit = None;
        }
    }

    fn segment_of(&self, position: u64) -> Arc<Segment> {
        let at = self.segments.partition_point(|s| s.base() <= position);
        self.segments[at.saturating_sub(1)].clone()
    }

    fn bad(
        &mut self,
        segment: &Segment,
        from: u64,
        to: u64,
        header: Option<&BatchHeader>,
        what: &'static str,
    ) {
        self.may_miss();
        if let Some(header) = header.filter(|header| !header.kind.is_local()) {
            self.losses.lost(header);
            self.tails.insert(header.shard, (header.term, header.seq.0));
        }
        self.extent.end = LogPosition(to);
        self.note(segment, from, to, what);
    }

    fn note(&mut self, segment: &Segment, from: u64, to: u64, what: &'static str) {
        if let Some(last) = self.damaged.last_mut()
            && last.to.0 == from
            && last.what == what
            && from > segment.base()
        {
            last.to = LogPosition(to);
            return;
        }
        self.damaged.push(Damage {
            from: LogPosition(from),
            to: LogPosition(to),
            file: name_of(segment.base(), SEGMENT),
            offset: from - segment.base(),
            what,
        });
    }

    /// Whether anything from `at` on proves that the log was durable beyond `from`.
    fn goes_on_after(&self, number: usize, from: u64, at: u64) -> Result<bool, CheckError> {
        for (step, segment) in self.segments[number..].iter().enumerate() {
            let at = if step == 0 { at } else { segment.base() };
            // One that can't be opened is no witness.
            let Ok(mut pass) = Pass::open(segment.clone(), at, self.log_epoch) else {
                continue;
            };
            let proved = pass.mark_above(from).map_err(|error| CheckError::Newer {
                path: segment.path().clone(),
                what: error.to_string(),
            })?;
            if proved {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The log ends here; what lies behind was never durable.
    fn end_at(&mut self, number: usize, from: u64) -> Result<(), HeaderError> {
        let start = self.unit.take().map_or(from, |unit| unit.first);
        let mut torn = from;
        let segment = self.segments[number].clone();
        if let Ok(mut pass) = Pass::open(segment, from, self.log_epoch) {
            while let Some(piece) = pass.next()? {
                if let Piece::Batch(batch) = piece {
                    torn = batch.header.end().0;
                }
            }
        }
        self.extent.end = LogPosition(start);
        self.extent.unsynced_bytes = torn - start;
        Ok(())
    }

    /// The log ends within a unit.
    fn cut_at(&mut self, first: u64) {
        let end = self.extent.end.0.max(first);
        self.extent.unsynced_bytes += end - first;
        self.extent.end = LogPosition(first);
    }

    fn seal(&mut self, sealed: Sealed) {
        self.check_index(true);
        self.sealed = Some(sealed);
    }

    /// Checks the indexes of the segment before. Unless the log `goes_on` behind it, it needs none.
    fn check_index(&mut self, goes_on: bool) {
        let Some(sealed) = self.sealed.take() else {
            return;
        };
        let name = file_name(sealed.base, QUEUE_INDEX);
        let path = self.folder.log.join(&name);
        let (bytes, state) = compare(
            self.vfs.as_ref(),
            &path,
            &sealed.memory,
            sealed.nonce,
            sealed.damaged,
        );
        let state = match state {
            FileState::Missing { .. } if !sealed.is_indexed => return,
            FileState::Damaged { .. } if !goes_on => FileState::Unused,
            state => state,
        };
        self.files.push(FileReport {
            name: format!("log/{name}"),
            kind: FileKind::QueueIndex,
            bytes,
            state,
        });
        // The one of keys is made by the first question, if it isn't there.
        let name = file_name(sealed.base, KEY_INDEX);
        let path = self.folder.log.join(&name);
        if let Some((bytes, state)) = check_keys(self.vfs.as_ref(), &path, sealed.nonce) {
            self.files.push(FileReport {
                name: format!("log/{name}"),
                kind: FileKind::KeyIndex,
                bytes,
                state,
            });
        }
    }
}

fn open(segment: &Arc<Segment>, log_epoch: u32) -> Result<Pass, CheckError> {
    Pass::open(segment.clone(), segment.base(), log_epoch).map_err(|error| CheckError::Unreadable {
        name: name_of(segment.base(), SEGMENT),
        what: error.to_string(),
    })
}

fn newer(segment: &Segment, error: &HeaderError) -> CheckError {
    CheckError::Newer {
        path: segment.path().clone(),
        what: error.to_string(),
    }
}

/// Progress is told after so many bytes.
const PROGRESS_BYTES: u64 = 8 << 20;

pub(super) fn name_of(base: u64, extension: &str) -> String {
    format!("log/{}", file_name(base, extension))
}

fn put(memory: &mut MemoryIndex, header: &BatchHeader, base: u64) {
    let entry = Entry::of(header, base);
    memory.put_seq(header.shard, entry.seq, entry.place);
    if header.queue.0 != 0 && entry.span > 0 {
        memory.put(header.queue, NO_SEGMENT, entry);
    }
}
