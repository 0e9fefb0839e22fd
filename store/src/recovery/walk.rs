//! Verifying the log forward from a position, batch by batch, to its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate_model::limits::SECTION_BYTES_MAX;
use tidegate_model::{ShardId, Term};

use super::scan::Scanner;
use super::{RecoveryReport, Replay, Tails, corrupt};
use crate::batch::{Kind, StoredBatch};
use crate::error::OpenError;
use crate::header::{ALIGN, BatchHeader, HEADER_BYTES, HeaderError};
use crate::index::{Delta, Entry, IndexState, SealedIndex};
use crate::position::LogPosition;
use crate::segment::{CLASS_LOG, Segment};
use crate::trim;

/// How far beyond a bad batch the next good one is looked for: past the largest section.
const LOOK_AHEAD_BYTES: u64 = 5 << 20;
/// The same in the segment after, whose first batch has a known place.
const LOOK_AHEAD_NEXT_BYTES: u64 = 1 << 20;

pub(super) struct Walk<'a> {
    segments: &'a [Arc<Segment>],
    /// Index of the scanner's segment.
    current: usize,
    scanner: Scanner,
    at: u64,
    /// All below this was durable, whatever is there now.
    witness: u64,
    log_epoch: u32,
    tails: Tails,
    /// Shards whose next seq may leave a gap, since a range before it is damaged.
    gaps: BTreeSet<ShardId>,
    gaps_everywhere: bool,
    /// Batches of a unit whose end has not come yet.
    unit: Vec<StoredBatch>,
    index: IndexState,
    deltas: Vec<Delta>,
    sealed: Vec<Arc<SealedIndex>>,
    replay: &'a mut dyn Replay,
    batches: u64,
    bytes_read: u64,
    cut_bytes: u64,
    quarantined: Vec<(LogPosition, LogPosition)>,
}

pub(super) struct Walked {
    pub(super) tail: u64,
    pub(super) log_epoch: u32,
    pub(super) tails: Tails,
    pub(super) index: IndexState,
    pub(super) deltas: Vec<Delta>,
    pub(super) sealed: Vec<Arc<SealedIndex>>,
}

const _: () = assert!(LOOK_AHEAD_BYTES > (SECTION_BYTES_MAX + HEADER_BYTES) as u64);

/// What lies beyond a bad batch.
#[derive(Default)]
struct Ahead {
    /// The first valid header.
    first: Option<u64>,
    /// The highest durable mark seen.
    mark: u64,
    /// The end of the last valid batch.
    end: u64,
}

impl<'a> Walk<'a> {
    #[expect(
        clippy::too_many_arguments,
        reason = "the pieces of one recovery, used once"
    )]
    pub(super) fn new(
        segments: &'a [Arc<Segment>],
        start: u64,
        witness: u64,
        log_epoch: u32,
        tails: Tails,
        index: IndexState,
        deltas: Vec<Delta>,
        replay: &'a mut dyn Replay,
    ) -> Result<Self, OpenError> {
        let current = segments
            .iter()
            .rposition(|segment| segment.base() <= start && start <= segment.end())
            .ok_or_else(|| OpenError::Corrupt {
                path: segments[0].path().clone(),
                what: format!(
                    "the segment with position {start}, where recovery begins, is missing"
                ),
            })?;
        Ok(Self {
            segments,
            current,
            scanner: open(&segments[current])?,
            at: start.max(segments[current].first()),
            witness,
            log_epoch,
            tails,
            gaps: BTreeSet::new(),
            gaps_everywhere: false,
            unit: Vec::new(),
            index,
            deltas,
            sealed: Vec::new(),
            replay,
            batches: 0,
            bytes_read: 0,
            cut_bytes: 0,
            quarantined: Vec::new(),
        })
    }

    pub(super) fn run(&mut self) -> Result<(), OpenError> {
        loop {
            if self.scanner.segment().is_full_at(self.at) {
                if !self.next_segment()? {
                    return Ok(());
                }
                continue;
            }
            if let Some(batch) = self.batch()? {
                self.take(batch)?;
                continue;
            }
            let ahead = self.look_ahead()?;
            if self.at >= self.witness && ahead.mark <= self.at {
                self.cut(&ahead);
                return Ok(());
            }
            let next = ahead.first.unwrap_or(self.witness.max(self.at));
            self.quarantine(next)?;
        }
    }

    pub(super) fn finish(mut self, report: &mut RecoveryReport) -> Walked {
        self.bytes_read += self.scanner.bytes_read();
        report.log_bytes_read = self.bytes_read;
        report.batches = self.batches;
        report.cut_bytes = self.cut_bytes;
        report.quarantined = self.quarantined;
        Walked {
            tail: self.at,
            log_epoch: self.log_epoch,
            tails: self.tails,
            index: self.index,
            deltas: self.deltas,
            sealed: self.sealed,
        }
    }

    fn next_segment(&mut self) -> Result<bool, OpenError> {
        let Some(next) = self.segments.get(self.current + 1) else {
            return Ok(false);
        };
        let scanner = open(next)?;
        self.bytes_read += self.scanner.bytes_read();
        self.scanner = scanner;
        self.current += 1;
        self.at = next.first();
        Ok(true)
    }

    /// The batch at the current position, if it is whole and may follow what came before.
    fn batch(&mut self) -> Result<Option<StoredBatch>, OpenError> {
        let path = self.scanner.segment().path().clone();
        let header = self.scanner.header(self.at).map_err(newer(&path))?;
        let Some(header) = header.filter(|header| self.may_follow(header)) else {
            return Ok(None);
        };
        let section = self.scanner.section(&header);
        Ok(section.map(|section| StoredBatch { header, section }))
    }

    fn may_follow(&self, header: &BatchHeader) -> bool {
        if header.log_epoch < self.log_epoch {
            return false;
        }
        if header.kind.is_local() {
            return true;
        }
        let of_unit = self.unit.last().map(|last| &last.header);
        if of_unit.is_some_and(|last| last.shard != header.shard) {
            return false;
        }
        let last = match of_unit {
            Some(last) => (last.term, last.seq.0),
            None => self.tails.get(&header.shard).copied().unwrap_or_default(),
        };
        let gap = self.gaps_everywhere && !self.gaps.contains(&header.shard);
        may_follow(last, (header.term, header.seq.0), gap)
    }

    fn take(&mut self, batch: StoredBatch) -> Result<(), OpenError> {
        let header = &batch.header;
        self.log_epoch = header.log_epoch;
        self.at = header.end().0;
        if header.kind == Kind::Pad {
            self.at = self.scanner.segment().end();
        }
        if header.kind.is_local() {
            return Ok(());
        }
        // From here on the shard's numbers are dense again.
        self.gaps.insert(header.shard);
        let more = header.has_more();
        self.unit.push(batch);
        if more { Ok(()) } else { self.deliver() }
    }

    fn deliver(&mut self) -> Result<(), OpenError> {
        let base = self.scanner.segment().base();
        for batch in std::mem::take(&mut self.unit) {
            let header = &batch.header;
            self.tails.insert(header.shard, (header.term, header.seq.0));
            let (queue, entry) = (header.queue, Entry::of(header, base));
            if let Some(sealed) = self.index.push(base, queue, entry) {
                self.deltas.clear();
                self.sealed.push(sealed);
            }
            self.deltas.push(Delta::Batch { queue, entry });
            if header.kind == Kind::Trim {
                self.trim(&batch)?;
            }
            self.batches += 1;
            self.replay
                .batch(&batch)
                .map_err(|source| OpenError::Replay {
                    position: header.position,
                    source,
                })?;
        }
        Ok(())
    }

    fn trim(&mut self, batch: &StoredBatch) -> Result<(), OpenError> {
        let rows = trim::decode(&batch.section).map_err(|error| OpenError::Corrupt {
            path: self.scanner.segment().path().clone(),
            what: format!("at position {}: {error}", batch.header.position),
        })?;
        for row in rows {
            self.index.trim(row);
            self.deltas.push(Delta::Trim(row));
        }
        Ok(())
    }

    fn look_ahead(&mut self) -> Result<Ahead, OpenError> {
        let mut ahead = Ahead::default();
        let mut at = self.at + ALIGN as u64;
        let mut limit = self.at + LOOK_AHEAD_BYTES;
        for number in self.current..self.segments.len() {
            let segment = &self.segments[number];
            let mut other;
            let scanner = if number == self.current {
                &mut self.scanner
            } else {
                let Ok(scanner) = Scanner::open(segment.clone()) else {
                    break;
                };
                other = scanner;
                at = segment.first();
                limit = limit.max(at + LOOK_AHEAD_NEXT_BYTES);
                &mut other
            };
            let mut any = false;
            while let Some(header) = scanner
                .next_header(at, limit)
                .map_err(newer(segment.path()))?
            {
                if header.log_epoch < self.log_epoch {
                    at = header.position.0 + ALIGN as u64;
                    continue;
                }
                any = true;
                ahead.first.get_or_insert(header.position.0);
                ahead.mark = ahead.mark.max(header.durable_mark.0);
                ahead.end = header.end().0;
                if ahead.mark > self.at {
                    break;
                }
                at = ahead.end;
                limit = at + LOOK_AHEAD_BYTES;
            }
            if number != self.current {
                self.bytes_read += scanner.bytes_read();
            }
            if ahead.mark > self.at || (number != self.current && !any) {
                break;
            }
        }
        Ok(ahead)
    }

    /// Ends the log before the bad batch, and before the unit that it leaves incomplete.
    fn cut(&mut self, ahead: &Ahead) {
        let torn = self.at.max(ahead.end);
        if let Some(first) = self.unit.first() {
            self.at = first.header.position.0;
            self.unit.clear();
        }
        self.cut_bytes = torn - self.at;
        if self.cut_bytes > 0 {
            tracing::warn!(
                tail = self.at,
                bytes = self.cut_bytes,
                "batches that never were durable are cut from the end of the log"
            );
        }
    }

    /// Goes on at `next`; what is between was durable once and is kept as it is.
    fn quarantine(&mut self, next: u64) -> Result<(), OpenError> {
        let (from, to) = (LogPosition(self.at), LogPosition(next));
        self.deliver()?;
        self.quarantined.push((from, to));
        self.gaps_everywhere = true;
        self.gaps.clear();
        self.replay
            .quarantined(from, to)
            .map_err(|source| OpenError::Replay {
                position: from,
                source,
            })?;
        self.at = next;
        while next >= self.scanner.segment().end() {
            if !self.next_segment()? {
                return Ok(());
            }
            self.at = next.max(self.at);
        }
        Ok(())
    }
}

/// Opens a segment to walk it. What is read from it must be what the disk holds: written pages are
/// synced first, and cached ones, which a failed sync may have left unwritten, are dropped.
fn open(segment: &Arc<Segment>) -> Result<Scanner, OpenError> {
    let scanner = Scanner::open(segment.clone()).map_err(corrupt(segment.path()))?;
    if scanner.class() != CLASS_LOG {
        return Err(OpenError::Corrupt {
            path: segment.path().clone(),
            what: "it holds only what was live, and both snapshots that cover the rest are gone"
                .to_owned(),
        });
    }
    scanner
        .file()
        .sync()
        .map_err(OpenError::io("syncing", segment.path()))?;
    scanner
        .file()
        .drop_cache()
        .map_err(OpenError::io("reading", segment.path()))?;
    Ok(scanner)
}

fn newer(path: &std::path::Path) -> impl FnOnce(HeaderError) -> OpenError {
    let path = path.to_owned();
    move |error| OpenError::Corrupt {
        path,
        what: error.to_string(),
    }
}

/// The rule of a shard's numbers: the next one, or one again in a higher term, which discards what
/// it repeats. A gap only where a damaged range may have held the batches between.
pub(crate) fn may_follow(last: (Term, u64), next: (Term, u64), gap: bool) -> bool {
    let (last_term, last_seq) = last;
    let (term, seq) = next;
    if seq == last_seq + 1 {
        term >= last_term
    } else if seq > last_seq {
        gap && term >= last_term
    } else {
        seq > 0 && term > last_term
    }
}
