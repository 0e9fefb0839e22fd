//! What damage took away, by the numbers of the batches around it.

use std::collections::HashMap;

use tidegate_model::{Offset, QueueId, Seq, ShardId, Term};

use super::report::{LOSSES_MAX, LostOffsets, LostSeqs};
use crate::header::BatchHeader;
use crate::id_map::QueueMap;
use crate::position::LogPosition;
use crate::snapshot::Manifest;

/// Where a shard or queue stands after the last batch of it that was seen.
#[derive(Clone, Copy)]
struct Stand {
    term: Term,
    /// Number expected next.
    next: u64,
    /// End of the last batch.
    end: u64,
}

#[derive(Default)]
pub(super) struct Losses {
    /// The log begins at its beginning, so numbers do as well.
    from_start: bool,
    shards: HashMap<ShardId, Stand>,
    queues: QueueMap<Stand>,
    pub(super) seqs: Vec<LostSeqs>,
    pub(super) offsets: Vec<LostOffsets>,
    pub(super) more: u64,
}

impl Losses {
    pub(super) fn new(from_start: bool) -> Self {
        Self {
            from_start,
            ..Self::default()
        }
    }

    /// From here on numbers begin anew: what is missing before them may have been dead.
    pub(super) fn forget(&mut self) {
        self.from_start = false;
        self.shards.clear();
        self.queues.clear();
    }

    /// Takes note of a batch, whole or known by its header alone.
    pub(super) fn saw(&mut self, header: &BatchHeader) {
        let (at, end) = (header.position.0, header.end().0);
        let (seq, term) = (header.seq.0, header.term);
        if let Some((first, after)) = gap(
            self.shards.get(&header.shard),
            self.from_start.then_some(1),
            seq,
        ) {
            self.lose_seqs(header.shard, first, seq - 1, after, at);
        }
        let next = seq.saturating_add(1);
        self.shards.insert(header.shard, Stand { term, next, end });
        if header.queue.0 == 0 || header.span == 0 {
            return;
        }
        let base = header.base_offset.0;
        if let Some((first, after)) = gap(
            self.queues.get(&header.queue),
            self.from_start.then_some(0),
            base,
        ) {
            self.lose_offsets(header.queue, first, base - 1, after, at);
        }
        let next = base.saturating_add(u64::from(header.span));
        self.queues.insert(header.queue, Stand { term, next, end });
    }

    /// What is wrong with a batch's offset, if it doesn't follow its queue's last one. A higher
    /// term may take offsets again; damage before it may have taken some away.
    pub(super) fn contradiction(
        &self,
        header: &BatchHeader,
        damaged_before: bool,
    ) -> Option<&'static str> {
        if header.queue.0 == 0 || header.span == 0 {
            return None;
        }
        let base = header.base_offset.0;
        match self.queues.get(&header.queue) {
            Some(last) if base < last.next && header.term <= last.term => {
                Some("its offsets are taken already")
            }
            Some(last) if base > last.next && !damaged_before => {
                Some("offsets are missing before it, and nothing is damaged")
            }
            None if self.from_start && base > 0 && !damaged_before => {
                Some("its queue doesn't begin at offset 0, and nothing is damaged")
            }
            _ => None,
        }
    }

    /// A damaged batch whose header is whole.
    pub(super) fn lost(&mut self, header: &BatchHeader) {
        self.saw(header);
        let (at, end) = (header.position.0, header.end().0);
        self.lose_seqs(header.shard, header.seq.0, header.seq.0, at, end);
        if header.queue.0 != 0 && header.span > 0 {
            let first = header.base_offset.0;
            let last = first.saturating_add(u64::from(header.span) - 1);
            self.lose_offsets(header.queue, first, last, at, end);
        }
    }

    /// Compares with what a snapshot knows: batches that it covers and that nobody saw.
    pub(super) fn end(&mut self, manifest: &Manifest) {
        for shard in &manifest.shards {
            let last = shard.seq.0;
            let stand = self.shards.get(&shard.shard);
            let next = stand.map_or(u64::from(self.from_start), |stand| stand.next);
            if next > 0 && next <= last {
                let after = stand.map_or(0, |stand| stand.end);
                self.lose_seqs(shard.shard, next, last, after, manifest.position.0);
            }
        }
    }

    fn lose_seqs(&mut self, shard: ShardId, first: u64, last: u64, after: u64, before: u64) {
        if self.seqs.len() >= LOSSES_MAX {
            self.more += 1;
            return;
        }
        self.seqs.push(LostSeqs {
            shard,
            first: Seq(first),
            last: Seq(last),
            after: LogPosition(after),
            before: LogPosition(before),
        });
    }

    fn lose_offsets(&mut self, queue: QueueId, first: u64, last: u64, after: u64, before: u64) {
        if self.offsets.len() >= LOSSES_MAX {
            self.more += 1;
            return;
        }
        self.offsets.push(LostOffsets {
            queue,
            first: Offset(first),
            last: Offset(last),
            after: LogPosition(after),
            before: LogPosition(before),
        });
    }
}

/// The first number missing before `number`, and the end of what was seen before it.
fn gap(last: Option<&Stand>, begin: Option<u64>, number: u64) -> Option<(u64, u64)> {
    let (next, end) = match last {
        Some(stand) => (stand.next, stand.end),
        None => (begin?, 0),
    };
    (number > next).then_some((next, end))
}
