//! Request streams, seen by the client.

use std::collections::HashMap;

use tidegate_model::code;

use super::{ClientSession, Delivery, Role};
use crate::delivery::DeliveryHeader;
use crate::event::{ClientEvent, Origin};
use crate::frame::{Frame, FrameType, encode_message};
use crate::limits::{REPLY_DELIVERIES_MAX, REPLY_DELIVERY_BYTES_MAX};
use crate::proto::{self, ReplyKind, RequestKind};
use crate::refusal::{Refusal, WireError};
use crate::stream::{PRIORITY_REQUEST, StreamId};

/// A request: what came of its answer.
#[derive(Debug, Default)]
pub(super) struct RequestState {
    over: bool,
    reply: Option<ReplyKind>,
    aliases: HashMap<u32, Origin>,
    /// Delivery frames that are still to come.
    frames: usize,
    bytes: usize,
    deliveries: Vec<Delivery>,
}

impl RequestState {
    /// Marks it over; whether it wasn't.
    pub(super) fn leave(&mut self) -> bool {
        !std::mem::replace(&mut self.over, true)
    }

    /// Whether no answer is awaited any more.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }
}

impl ClientSession {
    /// Asks something on a stream of its own; [`ClientEvent::Replied`] or
    /// [`ClientEvent::RequestRefused`] follows.
    ///
    /// # Errors
    /// A [`Refusal`] if the server takes no more streams, or the request is too large for a frame.
    pub fn request(&mut self, kind: RequestKind) -> Result<StreamId, Refusal> {
        self.may_open()?;
        let too_large = match &kind {
            RequestKind::DeployPlugin(_) => code::PLUGIN_TOO_LARGE,
            _ => code::INVALID_ARGUMENT,
        };
        let request = proto::Request { kind: Some(kind) };
        let frame = encode_message(FrameType::REQUEST, 0, &request)
            .map_err(|error| Refusal::new(too_large, error.to_string()))?;
        let role = Role::Request(Box::default());
        let stream = self.link.open(false, PRIORITY_REQUEST, role);
        self.streams += 1;
        self.link.send_with(stream, &[], frame);
        self.link.finish(stream);
        self.liveness.watch();
        Ok(stream)
    }

    /// Takes no interest in an answer any more. Whether the request takes effect is unknown.
    pub fn cancel_request(&mut self, stream: StreamId) {
        if let Some(Role::Request(request)) = self.link.role_mut(stream) {
            if request.leave() {
                self.streams -= 1;
            }
            self.link.abandon(stream, code::CANCELLED);
        }
    }

    pub(super) fn on_answer(&mut self, stream: StreamId, frame: &Frame) -> Result<(), WireError> {
        let Some(Role::Request(request)) = self.link.role_mut(stream) else {
            return Ok(());
        };
        match frame.prefix.kind {
            FrameType::REPLY if request.reply.is_none() && !request.over => {
                request.begin(frame.message()?)?;
            }
            FrameType::DELIVERY if request.frames > 0 && !request.over => request.add(frame)?,
            FrameType::REFUSED => {
                let refusal = Refusal::from_proto(frame.message()?);
                self.lost(stream, &refusal);
                return Ok(());
            }
            _ if frame.prefix.is_from_the_future() => return Ok(()),
            kind => {
                return Err(WireError::Unexpected {
                    kind,
                    place: "from a server on this request stream",
                });
            }
        }
        if request.frames == 0
            && let Some(reply) = request.reply.take()
        {
            let deliveries = std::mem::take(&mut request.deliveries);
            request.over = true;
            self.streams -= 1;
            self.events.push_back(ClientEvent::Replied {
                stream,
                reply,
                deliveries,
            });
        }
        Ok(())
    }
}

impl RequestState {
    fn begin(&mut self, reply: proto::Reply) -> Result<(), WireError> {
        let malformed = |reason: &str| WireError::Malformed {
            kind: FrameType::REPLY,
            reason: reason.to_owned(),
        };
        let kind = reply
            .kind
            .ok_or_else(|| malformed("its kind is unknown to this version"))?;
        let (frames, aliases) = match &kind {
            ReplyKind::Received(received) => (received.frames, &received.aliases[..]),
            ReplyKind::Read(read) => (read.frames, &read.aliases[..]),
            ReplyKind::Found(found) => (found.frames, &found.aliases[..]),
            _ => (0, &[][..]),
        };
        if frames as usize > REPLY_DELIVERIES_MAX || aliases.len() > REPLY_DELIVERIES_MAX {
            return Err(WireError::Exceeded {
                what: "delivery frames of a reply",
                found: u64::from(frames),
                max: REPLY_DELIVERIES_MAX as u64,
            });
        }
        self.frames = frames as usize;
        self.aliases = aliases
            .iter()
            .map(|alias| (alias.alias, Origin::from_alias(alias)))
            .collect();
        self.reply = Some(kind);
        Ok(())
    }

    fn add(&mut self, frame: &Frame) -> Result<(), WireError> {
        let (header, section) = DeliveryHeader::decode(frame)?;
        let origin = *self.aliases.get(&header.alias).ok_or(WireError::Unknown {
            what: "alias",
            number: u64::from(header.alias),
        })?;
        self.bytes += section.len();
        if self.bytes > REPLY_DELIVERY_BYTES_MAX {
            return Err(WireError::Exceeded {
                what: "bytes of a reply's deliveries",
                found: self.bytes as u64,
                max: REPLY_DELIVERY_BYTES_MAX as u64,
            });
        }
        self.frames -= 1;
        self.deliveries.push(Delivery {
            origin,
            header,
            section,
        });
        Ok(())
    }
}
