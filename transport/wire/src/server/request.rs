//! Request streams, seen by the server.

use tidegate_model::code;

use super::{Role, ServerSession};
use crate::event::{Delivery, Origin, ServerEvent};
use crate::frame::{Frame, FrameType, encode_message};
use crate::limits::{REPLY_DELIVERIES_MAX, REPLY_DELIVERY_BYTES_MAX, REQUEST_FIELDS_MAX};
use crate::proto::{self, ReplyKind};
use crate::refusal::{Refusal, WireError};
use crate::stream::StreamId;

impl ServerSession {
    /// Answers a request. `deliveries` follow a [`ReplyKind::Received`], [`ReplyKind::Read`] or
    /// [`ReplyKind::Found`], whose `frames` and `aliases` are filled in; other kinds have none. A reply that is too large becomes
    /// a refusal.
    pub fn reply(&mut self, stream: StreamId, mut kind: ReplyKind, deliveries: Vec<Delivery>) {
        if !self.take_due(stream) {
            return;
        }
        let (batches, bytes) = deliveries
            .iter()
            .fold((0, 0), |(batches, bytes), delivery| {
                (batches + 1, bytes + delivery.section.len())
            });
        if batches > REPLY_DELIVERIES_MAX || bytes > REPLY_DELIVERY_BYTES_MAX {
            let refusal = Refusal::new(
                code::LIMIT_REACHED,
                format!(
                    "a reply has at most {REPLY_DELIVERIES_MAX} batches and {REPLY_DELIVERY_BYTES_MAX} bytes; this one has {batches} and {bytes}"
                ),
            )
            .hint("ask for less at once");
            self.answer_refused(stream, &refusal);
            return;
        }
        let (aliases, numbers) = number_origins(&deliveries);
        let frames = u32::try_from(deliveries.len()).expect("REPLY_DELIVERIES_MAX is below 2^32");
        match &mut kind {
            ReplyKind::Received(received) => {
                received.frames = frames;
                received.aliases = aliases;
            }
            ReplyKind::Read(read) => {
                read.frames = frames;
                read.aliases = aliases;
            }
            ReplyKind::Found(found) => {
                found.frames = frames;
                found.aliases = aliases;
            }
            _ => {}
        }
        let reply = proto::Reply { kind: Some(kind) };
        match encode_message(FrameType::REPLY, 0, &reply) {
            Ok(frame) => self.link.send(stream, &frame),
            Err(error) => {
                let refusal = Refusal::new(code::LIMIT_REACHED, error.to_string())
                    .hint("ask for less at once");
                self.answer_refused(stream, &refusal);
                return;
            }
        }
        for (mut delivery, alias) in deliveries.into_iter().zip(numbers) {
            delivery.header.alias = alias;
            let header = delivery
                .header
                .encode(delivery.section.len())
                .expect("a stored section is below SECTION_BYTES_MAX");
            self.link.send_with(stream, &header, delivery.section);
        }
        self.link.finish(stream);
    }

    /// Refuses a request.
    pub fn refuse_request(&mut self, stream: StreamId, refusal: &Refusal) {
        if self.take_due(stream) {
            self.answer_refused(stream, refusal);
        }
    }

    pub(super) fn on_request(&mut self, stream: StreamId, frame: &Frame) -> Result<(), WireError> {
        let request: proto::Request = frame.message_within(REQUEST_FIELDS_MAX)?;
        let Some(role) = self.link.role_mut(stream) else {
            return Ok(());
        };
        *role = Role::Request { due: true };
        self.work_in_flight += 1;
        if let Some(why) = self.draining.clone() {
            self.refuse_request(stream, &why);
            return Ok(());
        }
        match request.kind {
            Some(request) => self
                .events
                .push_back(ServerEvent::Request { stream, request }),
            None => self.refuse_request(
                stream,
                &Refusal::new(
                    code::UNSUPPORTED,
                    "this server doesn't know this kind of request",
                )
                .hint("upgrade the server"),
            ),
        }
        Ok(())
    }

    fn take_due(&mut self, stream: StreamId) -> bool {
        match self.link.role_mut(stream) {
            Some(Role::Request { due }) if *due => {
                *due = false;
                self.work_in_flight -= 1;
                true
            }
            _ => false,
        }
    }

    fn answer_refused(&mut self, stream: StreamId, refusal: &Refusal) {
        self.send_message(stream, FrameType::REFUSED, &refusal.to_proto());
        self.link.finish(stream);
    }
}

/// Aliases for the origins of `deliveries`, and the alias of each.
fn number_origins(deliveries: &[Delivery]) -> (Vec<proto::Alias>, Vec<u32>) {
    let mut known: std::collections::HashMap<Origin, u32> = std::collections::HashMap::new();
    let mut aliases = Vec::new();
    let numbers = deliveries
        .iter()
        .map(|delivery| {
            let origin = delivery.origin;
            *known.entry(origin).or_insert_with(|| {
                let alias = u32::try_from(aliases.len()).expect("REPLY_DELIVERIES_MAX aliases");
                aliases.push(origin.to_alias(alias, 0));
                alias
            })
        })
        .collect();
    (aliases, numbers)
}
