//! Produce streams, seen by the server.

use std::collections::HashMap;

use super::{Role, ServerSession};
use crate::event::ServerEvent;
use crate::frame::{Frame, FrameType};
use crate::limits::{PUBLISH_BYTES_IN_FLIGHT_MAX, PUBLISHES_IN_FLIGHT_MAX};
use crate::proto;
use crate::publish::{PublishHeader, PublishOutcome, encode_outcomes};
use crate::refusal::{Refusal, WireError};
use crate::stream::StreamId;

/// A produce stream: what waits for an answer.
#[derive(Debug, Default)]
pub(super) struct ProducerState {
    opened: bool,
    /// Bytes of the section by ticket.
    in_flight: HashMap<u64, usize>,
    bytes: usize,
    last_ticket: Option<u64>,
    /// The client sends nothing more; the stream ends when everything is answered.
    ended: bool,
    /// Everything was answered when it ended.
    is_done: bool,
    /// The application knows that it is over.
    over: bool,
}

impl ProducerState {
    /// Whether nothing more is read until answers come.
    pub(super) fn is_full(&self) -> bool {
        !self.opened
            || self.in_flight.len() >= PUBLISHES_IN_FLIGHT_MAX
            || self.bytes >= PUBLISH_BYTES_IN_FLIGHT_MAX
    }

    /// Forgets everything; how many answers were due, opening included. `None` if it was over.
    pub(super) fn leave(&mut self) -> Option<usize> {
        let due = self.in_flight.len() + usize::from(!self.opened);
        let was_over = self.over;
        *self = Self {
            opened: true,
            over: true,
            ..Self::default()
        };
        (!was_over).then_some(due)
    }

    fn take(&mut self, ticket: u64) -> bool {
        match self.in_flight.remove(&ticket) {
            Some(len) => {
                self.bytes -= len;
                true
            }
            None => false,
        }
    }
}

impl ServerSession {
    /// The producer is open; its batches are read from now on.
    pub fn producer_opened(&mut self, stream: StreamId, opened: &proto::ProducerOpened) {
        if let Some(Role::Producer(producer)) = self.link.role_mut(stream)
            && !producer.opened
        {
            producer.opened = true;
            self.work_in_flight -= 1;
            self.send_message(stream, FrameType::PRODUCER_OPENED, opened);
            self.pump_if_resumed(stream);
        }
    }

    /// The producer is refused; its stream ends. No `ProducerClosed` follows.
    pub fn refuse_producer(&mut self, stream: StreamId, refusal: &Refusal) {
        if let Some(Role::Producer(producer)) = self.link.role_mut(stream)
            && let Some(due) = producer.leave()
        {
            self.work_in_flight -= due;
            self.send_message(stream, FrameType::REFUSED, &refusal.to_proto());
            self.link.finish(stream);
            self.link.stop(stream, refusal.code);
        }
    }

    /// Batches of one stream are stored. Those of a stream that is over are passed over.
    pub fn published(&mut self, stream: StreamId, outcomes: &[PublishOutcome]) {
        let Some(Role::Producer(producer)) = self.link.role_mut(stream) else {
            return;
        };
        let mut rest: Vec<PublishOutcome> = Vec::with_capacity(outcomes.len());
        rest.extend(outcomes.iter().filter(|o| producer.take(o.ticket)));
        self.work_in_flight -= rest.len();
        let mut rest = &rest[..];
        while !rest.is_empty() {
            let (frame, later) = encode_outcomes(rest);
            self.link.send(stream, &frame);
            rest = later;
        }
        self.after_answer(stream);
    }

    /// A batch is refused: nothing of it was stored.
    pub fn publish_refused(&mut self, stream: StreamId, ticket: u64, refusal: &Refusal) {
        let Some(Role::Producer(producer)) = self.link.role_mut(stream) else {
            return;
        };
        if producer.take(ticket) {
            self.work_in_flight -= 1;
            self.send_publish_refused(stream, ticket, refusal);
            self.after_answer(stream);
        }
    }

    pub(super) fn on_open_producer(
        &mut self,
        stream: StreamId,
        frame: &Frame,
    ) -> Result<(), WireError> {
        let open: proto::OpenProducer = frame.message()?;
        let Some(role) = self.link.role_mut(stream) else {
            return Ok(());
        };
        *role = Role::Producer(ProducerState::default());
        self.work_in_flight += 1;
        if let Some(why) = self.draining.clone() {
            self.refuse_producer(stream, &why);
        } else {
            self.events
                .push_back(ServerEvent::OpenProducer { stream, open });
        }
        Ok(())
    }

    pub(super) fn on_produce(&mut self, stream: StreamId, frame: &Frame) -> Result<(), WireError> {
        if frame.prefix.is_from_the_future() {
            return Ok(());
        }
        if frame.prefix.kind != FrameType::PUBLISH {
            return Err(WireError::Unexpected {
                kind: frame.prefix.kind,
                place: "from a client on a produce stream",
            });
        }
        let (header, section) = PublishHeader::decode(frame)?;
        let Some(Role::Producer(producer)) = self.link.role_mut(stream) else {
            return Ok(());
        };
        if producer.over {
            return Ok(());
        }
        let ticket = header.ticket;
        if producer.last_ticket.is_some_and(|last| ticket <= last) {
            return Err(WireError::Malformed {
                kind: FrameType::PUBLISH,
                reason: format!("ticket {ticket} doesn't rise"),
            });
        }
        producer.last_ticket = Some(ticket);
        if let Some(why) = self.draining.clone() {
            self.send_publish_refused(stream, ticket, &why);
            return Ok(());
        }
        producer.in_flight.insert(ticket, section.len());
        producer.bytes += section.len();
        self.work_in_flight += 1;
        self.events.push_back(ServerEvent::Publish {
            stream,
            header,
            section,
        });
        Ok(())
    }

    /// The client has sent its last batch: the stream ends when all are answered.
    pub(super) fn finish_producer(&mut self, stream: StreamId) {
        if let Some(Role::Producer(producer)) = self.link.role_mut(stream) {
            producer.ended = true;
            producer.is_done = producer.opened && producer.in_flight.is_empty();
            self.after_answer(stream);
        }
    }

    fn after_answer(&mut self, stream: StreamId) {
        if let Some(Role::Producer(producer)) = self.link.role_mut(stream)
            && producer.ended
            && producer.in_flight.is_empty()
            && !producer.over
        {
            let is_done = producer.is_done;
            producer.leave();
            self.events
                .push_back(ServerEvent::ProducerClosed { stream, is_done });
            self.link.finish(stream);
        } else {
            self.pump_if_resumed(stream);
        }
    }

    fn send_publish_refused(&mut self, stream: StreamId, ticket: u64, refusal: &Refusal) {
        let message = proto::PublishRefused {
            ticket,
            refused: Some(refusal.to_proto()),
        };
        self.send_message(stream, FrameType::PUBLISH_REFUSED, &message);
    }
}
