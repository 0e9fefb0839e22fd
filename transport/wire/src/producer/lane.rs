//! One queue of a producer: its batches in order of sequence.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tidegate_model::checksum::crc32c;
use tidegate_model::{Code, Codec, SectionBuilder, Sequence, code};

use super::BatchNumber;
use crate::limits::QUEUE_IN_FLIGHT_MAX;
use crate::publish::PublishHeader;

/// A queue's batches. While it isn't recovering, those in flight come before those that wait.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) open: Option<Open>,
    pub(super) batches: VecDeque<Batch>,
    pub(super) next_sequence: u64,
    /// Batches in flight.
    pub(super) sent: usize,
    /// Something was refused: nothing is sent before all answers are in, so that order is kept.
    pub(super) recovering: bool,
    pub(super) retry_at: Duration,
    pub(super) backoff: Duration,
    /// Whether the producer has it among those with something to send.
    pub(super) queued: bool,
}

/// A batch that still takes messages.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) number: BatchNumber,
    pub(super) layout_version: u32,
    pub(super) builder: SectionBuilder,
}

/// A closed batch that waits for its answer.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) number: BatchNumber,
    pub(super) sequence: u64,
    pub(super) count: u16,
    pub(super) section: Bytes,
    codec: Codec,
    crc: u32,
    layout_version: u32,
    /// The ticket under which it is in flight.
    ticket: Option<u64>,
    /// An attempt ended without an answer: it may be stored.
    pub(super) undecided: bool,
    pub(super) first_refused: Option<Duration>,
}

impl Batch {
    pub(super) fn seal(open: &Open, sequence: u64, compress: bool) -> Self {
        let builder = &open.builder;
        let holds = "an open batch holds a message";
        let (section, codec) = if compress {
            let packed = builder.finish_lz4().expect(holds);
            if packed.len() < builder.len() {
                (packed, Codec::Lz4)
            } else {
                (builder.finish().expect(holds), Codec::None)
            }
        } else {
            (builder.finish().expect(holds), Codec::None)
        };
        Self {
            number: open.number,
            sequence,
            count: u16::try_from(builder.count()).expect("BATCH_RECORDS_MAX is below 2^16"),
            crc: crc32c(&section),
            section: section.into(),
            codec,
            layout_version: open.layout_version,
            ticket: None,
            undecided: false,
            first_refused: None,
        }
    }

    /// Whether a refusal with this code says that no attempt stored it.
    pub(super) fn was_never_stored(&self, refused: Code) -> bool {
        match refused {
            code::TIMEOUT | code::SEQUENCE_TOO_OLD => false,
            code::BATCH_INVALID | code::MESSAGE_TOO_LARGE | code::DUE_TIME_UNSUPPORTED => true,
            _ => !self.undecided,
        }
    }
}

impl Lane {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.batches.is_empty()
    }

    pub(super) fn can_send(&self) -> bool {
        !self.recovering && self.sent < self.batches.len() && self.sent < QUEUE_IN_FLIGHT_MAX
    }

    /// The next batch, in flight from now on.
    pub(super) fn send(&mut self, ticket: u64, queue_index: u32) -> Option<(PublishHeader, Bytes)> {
        if !self.can_send() {
            return None;
        }
        let batch = self.batches.get_mut(self.sent)?;
        self.sent += 1;
        batch.ticket = Some(ticket);
        let header = PublishHeader {
            ticket,
            queue_index,
            layout_version: batch.layout_version,
            sequence: Sequence(batch.sequence),
            section_crc: batch.crc,
            count: batch.count,
            span: batch.count,
            key_id: 0,
            codec: batch.codec as u8,
        };
        Some((header, batch.section.clone()))
    }

    /// The batch in flight under this ticket, and its place.
    pub(super) fn find(&mut self, ticket: u64) -> Option<(usize, &mut Batch)> {
        self.batches
            .iter_mut()
            .enumerate()
            .find(|(_, batch)| batch.ticket == Some(ticket))
    }

    /// Removes the batch in flight under this ticket.
    pub(super) fn take(&mut self, ticket: u64) -> Option<Batch> {
        let (at, _) = self.find(ticket)?;
        self.remove(at)
    }

    /// Removes a batch that was in flight.
    pub(super) fn remove(&mut self, at: usize) -> Option<Batch> {
        self.sent -= 1;
        self.batches.remove(at)
    }

    /// A batch in flight waits again.
    pub(super) fn put_back(&mut self, at: usize, undecided: bool) {
        let batch = &mut self.batches[at];
        batch.ticket = None;
        batch.undecided |= undecided;
        self.sent -= 1;
    }

    /// Moves the sequences behind a batch that will never be stored: the broker takes only the next.
    /// Those of them that are in flight come back with `sequence-gap` and go out again.
    pub(super) fn close_gap(&mut self, from: usize, count: u16) {
        for batch in self.batches.iter_mut().skip(from) {
            batch.sequence -= u64::from(count);
        }
        self.next_sequence -= u64::from(count);
    }

    /// No answers come any more.
    pub(super) fn undecided(&mut self) {
        for batch in &mut self.batches {
            batch.undecided |= batch.ticket.take().is_some();
        }
        self.sent = 0;
        self.queued = false;
    }
}
