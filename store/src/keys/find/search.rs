//! The search itself.
//!
//! Messages come in the order of append time, queue and offset. A heap holds what may come next:
//! segments by the time at their end, and batches by what the queue index says of them. The best of
//! them is opened until it is a message. So nothing is looked at before its turn, and where a page
//! ends, a [`Bookmark`] says it all.

use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use tidegate_model::hash::key_hash;
use tidegate_model::{Bookmark, Offset, Order, QueueId, Timestamp};

use super::next::{
    File, Next, Places, Range, Rank, Segment, Stream, Work, after, begin_of, end_of,
};
use super::{Find, Found, FoundBatch};
use crate::error::ReadError;
use crate::index::{Entry, Index, Run};
use crate::keys::Keys;
use crate::keys::build::{hash_keys, holds_messages, messages};
use crate::keys::kix::COVERS_ALL;
use crate::keys::sealed::Candidates;
use crate::reader::Reader;
use crate::sync::lock;

/// Questions of a page to key indexes, one per segment and queue.
const LOOKUPS_MAX: u32 = 1 << 16;
/// Batches read for a page.
const BATCHES_MAX: u32 = 1024;
/// Bytes of sections read for a page; one batch always is.
const BYTES_MAX: u64 = 64 << 20;
/// Key indexes made for a page: each reads its segment.
const BUILDS_MAX: u32 = 4;
/// Batches of the newest segment whose keys are gathered for a page.
const SCANNED_BATCHES_MAX: u32 = 1 << 14;
/// Bytes of their sections.
const SCANNED_BYTES_MAX: u64 = 64 << 20;
/// Entries of a segment's index that are copied at a time; the owner of the log may wait meanwhile.
const ENTRIES: usize = 1024;
/// Places of batches that no key index speaks of, gathered at a time.
const PLACES_MAX: usize = 1 << 14;

/// What is left of a page's work.
struct Budget {
    lookups: u32,
    batches: u32,
    bytes: u64,
    builds: u32,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.lookups == 0 || self.batches == 0 || self.bytes == 0
    }
}

pub(super) struct Search<'a> {
    reader: &'a Reader,
    find: &'a Find<'a>,
    /// Messages from here on, inclusive.
    low: Bookmark,
    /// Messages before this.
    high: Bookmark,
    heap: BinaryHeap<Next>,
    budget: Budget,
    found: Found,
    messages: usize,
    bytes: u64,
    /// The batch looked at last: while a segment is rewritten a batch may be in two.
    last: Option<(QueueId, Offset)>,
}

impl<'a> Search<'a> {
    pub(super) fn new(reader: &'a Reader, find: &'a Find<'a>) -> Self {
        let mut low = Bookmark::at(find.from);
        let mut high = Bookmark::at(find.to);
        match (find.order, find.page) {
            (Order::NewestFirst, Some(page)) => high = high.min(page),
            (Order::OldestFirst, Some(page)) => low = low.max(page),
            (_, None) => {}
        }
        Self {
            reader,
            find,
            low,
            high,
            heap: BinaryHeap::new(),
            budget: Budget {
                lookups: LOOKUPS_MAX,
                batches: BATCHES_MAX,
                bytes: BYTES_MAX,
                builds: BUILDS_MAX,
            },
            found: Found::default(),
            messages: 0,
            bytes: 0,
            last: None,
        }
    }

    fn keys(&self) -> &'a Keys {
        &self.reader.shared.keys
    }

    fn index(&self) -> &'a Index {
        &self.reader.shared.index
    }

    /// Where the page begins.
    fn begin(&self) -> Bookmark {
        match self.find.order {
            Order::NewestFirst => self.high,
            Order::OldestFirst => self.low,
        }
    }

    pub(super) fn run(mut self) -> Result<Found, ReadError> {
        if self.low >= self.high || self.find.queues.is_empty() {
            return Ok(self.found);
        }
        self.add_segments();
        let begin = self.rank(self.begin());
        loop {
            let Some(next) = self.heap.peek_mut() else {
                return Ok(self.found);
            };
            // A page goes on until it has got anywhere at all.
            let is_full = self.messages >= self.find.max_messages.max(1)
                || self.messages > 0 && self.bytes >= self.find.max_bytes;
            let place = next.rank;
            if is_full || self.budget.is_spent() && place < begin {
                drop(next);
                self.found.next = Some(self.bookmark(place));
                return Ok(self.found);
            }
            match PeekMut::pop(next).work {
                Work::Segment(segment) => {
                    if !self.open_segment(segment)? {
                        self.found.next = Some(self.bookmark(place));
                        return Ok(self.found);
                    }
                }
                Work::Batch(stream) => {
                    if let Some(place) = self.read(&stream)? {
                        self.found.next = Some(place);
                        return Ok(self.found);
                    }
                    self.go_on(stream)?;
                }
            }
        }
    }

    /// Puts all segments on the heap that overlap the time range.
    fn add_segments(&mut self) {
        let (sealed, newest) = self.index().bases();
        let bases: Vec<u64> = sealed.iter().map(|(base, _)| *base).collect();
        self.keys().retain(&bases);
        for (base, times) in sealed {
            // One without times holds no queue's batch.
            let Some(times) = times else { continue };
            let (from, to) = (
                Bookmark::at(Timestamp(times.first)),
                after(Timestamp(times.last)),
            );
            if from < self.high && self.low < to {
                self.push(from, to, Work::Segment(Segment::Sealed(base)));
            }
        }
        let newest = Work::Segment(Segment::Newest(newest));
        self.push(self.low, self.high, newest);
    }

    /// Puts what a segment may hold on the heap. `false` if its key index is missing and a page has
    /// made as many as it may.
    fn open_segment(&mut self, segment: Segment) -> Result<bool, ReadError> {
        let file = self.file(segment);
        if let (Segment::Sealed(base), Some(_)) = (segment, self.find.key)
            && let Some(keys) = self.keys().of(base)
        {
            match keys.open(&mut self.budget.builds) {
                Err(ReadError::Quarantined { .. }) if !self.is_same(&file, segment) => {
                    return self.open_segment(segment);
                }
                Ok(Some(kix)) => self.found.unreadable += u64::from(kix.info().unreadable),
                Ok(None) => return Ok(false),
                Err(ReadError::Quarantined { .. }) => {
                    self.found.unreadable += 1;
                    return Ok(true);
                }
                // Removed in the meantime.
                Err(ReadError::NotFound { .. }) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        for queue in self.find.queues {
            self.open_queue(segment, *queue, (self.low, self.high))?;
        }
        Ok(true)
    }

    /// Puts what a segment may hold of a queue in a range on the heap.
    fn open_queue(
        &mut self,
        segment: Segment,
        queue: QueueId,
        range: Range,
    ) -> Result<(), ReadError> {
        let file = self.file(segment);
        self.budget.lookups = self.budget.lookups.saturating_sub(1);
        let candidates = match (self.find.key, segment) {
            (None, _) => Candidates::any(),
            (Some(key), Segment::Sealed(base)) => match self.keys().of(base) {
                Some(keys) => {
                    let hash = key_hash(queue, key);
                    match keys.candidates(hash, &mut self.budget.builds) {
                        Ok(candidates) => candidates,
                        Err(ReadError::Quarantined { .. }) if !self.is_same(&file, segment) => {
                            return self.open_queue(segment, queue, range);
                        }
                        Err(ReadError::Quarantined { .. }) => {
                            self.found.unreadable += 1;
                            return Ok(());
                        }
                        Err(ReadError::NotFound { .. }) => return Ok(()),
                        Err(error) => return Err(error),
                    }
                }
                None => return Ok(()),
            },
            (Some(key), Segment::Newest(base)) => self.recent(base, queue, key)?,
        };
        if candidates.places.is_empty() && candidates.covered == COVERS_ALL {
            return self.push_stream(segment, file, queue, Places::default(), range);
        }
        match self.within(segment.base(), queue, candidates, range) {
            Ok(places) => self.push_stream(segment, file, queue, places, range),
            Err(ReadError::Quarantined { .. }) => {
                self.found.unreadable += 1;
                Ok(())
            }
            // Removed in the meantime.
            Err(ReadError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The places among `candidates` whose batches reach into a range and are still in the queue.
    fn within(
        &self,
        base: u64,
        queue: QueueId,
        candidates: Candidates,
        (low, high): Range,
    ) -> Result<Places, ReadError> {
        let start = self.reader.bounds(queue).start.0;
        let newest_first = self.find.order == Order::NewestFirst;
        let Candidates {
            mut places,
            covered,
        } = candidates;
        let part = self.index().with_run(base, queue, |run| {
            let run = run?;
            let first = run.partition_point(|entry| {
                entry.end_offset() <= start || end_of(queue, entry) <= low
            });
            let until = run.partition_point(|entry| begin_of(queue, entry) < high);
            if first >= until {
                return None;
            }
            let bounds = (run.entry(first).place, run.entry(until - 1).place);
            let uncovered = run.partition_point(|entry| entry.place < covered);
            let rest = first.max(uncovered)..until.max(uncovered);
            let more = rest.len() > PLACES_MAX;
            let rest = match (more, newest_first) {
                (false, _) => rest,
                (true, true) => rest.end - PLACES_MAX..rest.end,
                (true, false) => rest.start..rest.start + PLACES_MAX,
            };
            let rest: Vec<u32> = rest.map(|at| run.entry(at).place).collect();
            Some((bounds, rest, more))
        })?;
        let Some(((from, to), rest, more)) = part else {
            return Ok(Places::default());
        };
        if more && newest_first {
            places.clear();
        }
        places.retain(|place| (from..=to).contains(place) && *place < covered);
        places.extend(rest);
        if !newest_first {
            places.reverse();
        }
        Ok(Places { places, more })
    }

    /// Batches of the newest segment that may hold the key, once the keys of those not looked at
    /// yet are gathered.
    fn recent(&self, base: u64, queue: QueueId, key: &[u8]) -> Result<Candidates, ReadError> {
        let mut recent = lock(&self.keys().recent);
        let newest = self.index().bases().1;
        recent.turn_to(newest);
        if newest != base {
            return Ok(Candidates::any());
        }
        let (mut batches, mut bytes) = (SCANNED_BATCHES_MAX, SCANNED_BYTES_MAX);
        let mut hashes = Vec::new();
        'entries: loop {
            let until = recent.scanned(queue).until;
            let entries = self.index().with_run(base, queue, |run| {
                let Some(run) = run else {
                    return Vec::new();
                };
                let first = run.partition_point(|entry| entry.place < until);
                let last = run.len().min(first + ENTRIES);
                (first..last).map(|at| run.entry(at)).collect()
            })?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                if batches == 0 || bytes == 0 {
                    break 'entries;
                }
                batches -= 1;
                bytes = bytes.saturating_sub(u64::from(entry.section_len));
                let batch = match self.reader.read_entry(&entry.public(base)) {
                    Ok(batch) => Some(batch),
                    Err(ReadError::Quarantined { .. } | ReadError::NotFound { .. }) => None,
                    Err(error) => return Err(error),
                };
                hashes.clear();
                if let Some(batch) = &batch
                    && holds_messages(&batch.header)
                {
                    hash_keys(&batch.header, &batch.section, &mut hashes);
                }
                if !recent.add(queue, entry.place, &hashes, batch.is_some()) {
                    break 'entries;
                }
            }
        }
        Ok(recent.candidates(queue, key_hash(queue, key)))
    }

    fn file(&self, segment: Segment) -> File {
        self.reader.shared.segments.at_base(segment.base())
    }

    /// Whether a segment was neither rewritten nor removed since `file` was looked up. Index and
    /// segment are exchanged at once, so what was asked in between was of `file`.
    fn is_same(&self, file: &File, segment: Segment) -> bool {
        match (file, &self.file(segment)) {
            (Some(file), Some(now)) => Arc::ptr_eq(file, now),
            (None, None) => true,
            _ => false,
        }
    }

    /// Puts the batch at the last of `places` that the queue's index knows on the heap. If the
    /// segment isn't any more what the places are of, they are looked for again in `range`.
    fn push_stream(
        &mut self,
        segment: Segment,
        file: File,
        queue: QueueId,
        mut places: Places,
        range: Range,
    ) -> Result<(), ReadError> {
        loop {
            let place = places.places.last().copied();
            let entry = match place {
                Some(place) => {
                    let at_place = |run: Option<Run<'_>>| run.and_then(|run| run.at_place(place));
                    self.index().with_run(segment.base(), queue, at_place)?
                }
                None => None,
            };
            match (place, entry) {
                _ if !self.is_same(&file, segment) => {
                    return self.open_queue(segment, queue, range);
                }
                (None, _) => return Ok(()),
                (Some(_), None) => {
                    // The key index has a row too much: of a batch that was cut or taken out.
                    places.places.pop();
                }
                (Some(_), Some(entry)) => {
                    let stream = Stream {
                        segment,
                        file,
                        queue,
                        places,
                        entry,
                    };
                    let (from, to) = (begin_of(queue, &entry), end_of(queue, &entry));
                    self.push(from, to, Work::Batch(stream));
                    return Ok(());
                }
            }
        }
    }

    /// What comes after a batch in its queue and segment.
    fn go_on(&mut self, mut stream: Stream) -> Result<(), ReadError> {
        stream.places.places.pop();
        let Stream {
            segment,
            file,
            queue,
            places,
            entry,
        } = stream;
        let range = match self.find.order {
            Order::NewestFirst => (self.low, begin_of(queue, &entry)),
            Order::OldestFirst => (end_of(queue, &entry), self.high),
        };
        if places.places.is_empty() && places.more {
            self.open_queue(segment, queue, range)
        } else {
            self.push_stream(segment, file, queue, places, range)
        }
    }

    /// Reads the batch whose turn it is and takes out what is looked for. If the page is full before
    /// all of the batch is, the answer is where to go on.
    fn read(&mut self, stream: &Stream) -> Result<Option<Bookmark>, ReadError> {
        let Stream { queue, entry, .. } = stream;
        let is_known = self.last.replace((*queue, Offset(entry.base_offset)));
        if is_known == self.last {
            return Ok(None);
        }
        self.budget.batches = self.budget.batches.saturating_sub(1);
        self.budget.bytes = self
            .budget
            .bytes
            .saturating_sub(u64::from(entry.section_len));
        let entry_there = entry.public(stream.segment.base());
        let batch = match self.reader.read_entry(&entry_there) {
            Ok(batch) => batch,
            Err(ReadError::Quarantined { .. }) => {
                self.found.unreadable += 1;
                return Ok(None);
            }
            Err(ReadError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = &batch.header;
        let is_it = holds_messages(header)
            && header.queue == *queue
            && header.base_offset.0 == entry.base_offset;
        let section = if is_it {
            messages(header, &batch.section)
        } else {
            None
        };
        let Some(section) = section else {
            return Ok(None);
        };
        let start = self.reader.bounds(*queue).start;
        let mut records = Vec::new();
        let mut stopped = None;
        for step in 0..section.count() {
            let at = match self.find.order {
                Order::NewestFirst => section.count() - 1 - step,
                Order::OldestFirst => step,
            };
            let record = section.record(at);
            let place = Bookmark {
                time: header.append_time,
                queue: *queue,
                offset: header.base_offset.plus(u64::from(record.delta())),
            };
            let is_wanted = self.low <= place
                && place < self.high
                && start <= place.offset
                && self
                    .find
                    .key
                    .is_none_or(|key| record.keys().any(|its| its == key));
            if !is_wanted {
                continue;
            }
            let body = section.body_start(at + 1) - section.body_start(at);
            let bytes = (record.head_bytes().len() + body) as u64;
            let fits = self.messages < self.find.max_messages.max(1)
                && (self.messages == 0 || self.bytes + bytes <= self.find.max_bytes);
            if !fits {
                stopped = Some(match self.find.order {
                    Order::NewestFirst => Bookmark {
                        offset: place.offset.plus(1),
                        ..place
                    },
                    Order::OldestFirst => place,
                });
                break;
            }
            self.messages += 1;
            self.bytes += bytes;
            records.push(u16::try_from(at).expect("BATCH_RECORDS_MAX is below 2^16"));
        }
        if !records.is_empty() {
            records.sort_unstable();
            self.found.batches.push(FoundBatch { batch, records });
        }
        Ok(stopped)
    }

    /// Puts something on the heap that may hold messages between two places, `to` exclusive.
    fn push(&mut self, from: Bookmark, to: Bookmark, work: Work) {
        let best = match self.find.order {
            Order::NewestFirst => to.min(self.high),
            Order::OldestFirst => from.max(self.low),
        };
        let rank = self.rank(best);
        self.heap.push(Next { rank, work });
    }

    fn rank(&self, place: Bookmark) -> Rank {
        let rank = (place.time.0, place.queue.0, place.offset.0);
        self.turned(rank)
    }

    fn bookmark(&self, rank: Rank) -> Bookmark {
        let (time, queue, offset) = self.turned(rank);
        Bookmark {
            time: Timestamp(time),
            queue: QueueId(queue),
            offset: Offset(offset),
        }
    }

    /// The complement of a number falls where the number rises.
    fn turned(&self, (time, queue, offset): Rank) -> Rank {
        match self.find.order {
            Order::NewestFirst => (time, queue, offset),
            Order::OldestFirst => (!time, !queue, !offset),
        }
    }
}

impl Run<'_> {
    /// The entry of the batch at `place`.
    fn at_place(&self, place: u32) -> Option<Entry> {
        let at = self.partition_point(|entry| entry.place < place);
        (at < self.len())
            .then(|| self.entry(at))
            .filter(|entry| entry.place == place)
    }
}
