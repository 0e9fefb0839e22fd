//! Produce streams, seen by the client.

use std::collections::HashMap;

use bytes::Bytes;
use tidegate_model::code;

use super::{ClientSession, Role};
use crate::event::ClientEvent;
use crate::frame::{Frame, FrameType, encode_message};
use crate::proto;
use crate::publish::{PublishHeader, decode_outcomes};
use crate::refusal::{Refusal, WireError};
use crate::stream::{PRIORITY_PRODUCE, StreamId};

/// A produce stream: which tickets wait for an answer.
#[derive(Debug, Default)]
pub(super) struct ProducerState {
    opened: bool,
    over: bool,
    /// Bytes of the section by ticket.
    in_flight: HashMap<u64, usize>,
    last_ticket: Option<u64>,
}

impl ProducerState {
    /// Marks it over; whether it wasn't.
    pub(super) fn leave(&mut self) -> bool {
        !std::mem::replace(&mut self.over, true)
    }

    /// Whether the stream is over for the application.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether nothing waits for an answer.
    pub(super) fn is_settled(&self) -> bool {
        self.opened && self.in_flight.is_empty()
    }

    fn take(&mut self, ticket: u64) -> Result<(), WireError> {
        match self.in_flight.remove(&ticket) {
            Some(_) => Ok(()),
            None => Err(WireError::Unknown {
                what: "publish ticket",
                number: ticket,
            }),
        }
    }
}

impl ClientSession {
    /// Opens a producer on a stream of its own; [`ClientEvent::ProducerOpened`] or
    /// [`ClientEvent::ProducerClosed`] follows.
    ///
    /// # Errors
    /// A [`Refusal`] if the server takes no more streams.
    pub fn open_producer(&mut self, open: &proto::OpenProducer) -> Result<StreamId, Refusal> {
        self.may_open()?;
        let frame = encode_message(FrameType::OPEN_PRODUCER, 0, open)
            .map_err(|error| error.to_argument())?;
        let role = Role::Producer(ProducerState::default());
        let stream = self.link.open(false, PRIORITY_PRODUCE, role);
        self.streams += 1;
        self.link.send(stream, &frame);
        self.liveness.watch();
        Ok(stream)
    }

    /// Whether [`Self::publish`] would take a batch now: the producer is open, fewer batches wait for
    /// an answer than the server allows, and the transport keeps up.
    #[must_use]
    pub fn can_publish(&self, stream: StreamId) -> bool {
        let Some(Role::Producer(producer)) = self.link.role(stream) else {
            return false;
        };
        producer.opened
            && !producer.over
            && producer.in_flight.len() < self.limits.publishes_in_flight_max as usize
            && !self.output_is_full(stream)
    }

    /// Sends a batch. Its ticket is larger than all before on this stream.
    ///
    /// # Errors
    /// A [`Refusal`], nothing was sent: `overloaded` where [`Self::can_publish`] says no,
    /// `batch-invalid` for a section above the limit or a ticket that doesn't rise.
    pub fn publish(
        &mut self,
        stream: StreamId,
        header: &PublishHeader,
        section: Bytes,
    ) -> Result<(), Refusal> {
        if !self.can_publish(stream) {
            return Err(Refusal::new(
                code::OVERLOADED,
                "the producer isn't open, or too many batches wait for an answer",
            ));
        }
        let max = self.limits.section_bytes_max as usize;
        if section.len() > max {
            return Err(Refusal::new(
                code::MESSAGE_TOO_LARGE,
                format!(
                    "the server takes sections of {max} bytes; this one has {}",
                    section.len()
                ),
            )
            .hint("send fewer messages in a batch"));
        }
        let bytes = header
            .encode(section.len())
            .map_err(|error| Refusal::new(code::MESSAGE_TOO_LARGE, error.to_string()))?;
        let Some(Role::Producer(producer)) = self.link.role_mut(stream) else {
            return Ok(());
        };
        if producer
            .last_ticket
            .is_some_and(|last| header.ticket <= last)
        {
            return Err(Refusal::new(
                code::BATCH_INVALID,
                format!("publish ticket {} doesn't rise", header.ticket),
            ));
        }
        producer.last_ticket = Some(header.ticket);
        producer.in_flight.insert(header.ticket, section.len());
        self.link.send_with(stream, &bytes, section);
        self.liveness.watch();
        Ok(())
    }

    /// Says that no more batches come; those in flight are still answered.
    pub fn finish_producer(&mut self, stream: StreamId) {
        if matches!(self.link.role(stream), Some(Role::Producer(_))) {
            self.link.finish(stream);
        }
    }

    pub(super) fn on_produce(&mut self, stream: StreamId, frame: &Frame) -> Result<(), WireError> {
        let Some(Role::Producer(producer)) = self.link.role_mut(stream) else {
            return Ok(());
        };
        match frame.prefix.kind {
            FrameType::PRODUCER_OPENED if !producer.opened => {
                producer.opened = true;
                self.events.push_back(ClientEvent::ProducerOpened {
                    stream,
                    opened: frame.message()?,
                });
            }
            FrameType::PUBLISHED => {
                let outcomes = decode_outcomes(frame)?;
                for outcome in &outcomes {
                    producer.take(outcome.ticket)?;
                }
                self.events
                    .push_back(ClientEvent::Published { stream, outcomes });
            }
            FrameType::PUBLISH_REFUSED => {
                let refused: proto::PublishRefused = frame.message()?;
                producer.take(refused.ticket)?;
                self.events.push_back(ClientEvent::PublishRefused {
                    stream,
                    ticket: refused.ticket,
                    refusal: Refusal::from_optional(refused.refused),
                });
            }
            FrameType::REFUSED => {
                let refusal = Refusal::from_proto(frame.message()?);
                self.lost(stream, &refusal);
                self.link.finish(stream);
            }
            _ if frame.prefix.is_from_the_future() => {}
            kind => {
                return Err(WireError::Unexpected {
                    kind,
                    place: "from a server on a produce stream",
                });
            }
        }
        Ok(())
    }
}
