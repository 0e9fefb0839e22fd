//! Hello, subscriptions, credit and settlement, seen by the client.

use tidegate_model::{Code, code};

use super::ClientSession;
use crate::event::ClientEvent;
use crate::frame::{Frame, FrameType, encode_message};
use crate::proto;
use crate::refusal::{Refusal, WireError};
use crate::settle::{SettleFrame, SettleRun};
use crate::stream::CONTROL;

impl ClientSession {
    /// Asks for a subscription; the number in it is filled in and returned. Credit may be granted at
    /// once; messages come once it lives.
    ///
    /// # Errors
    /// A [`Refusal`] if the server takes no more, or the request doesn't fit a frame.
    pub fn subscribe(&mut self, mut subscribe: proto::Subscribe) -> Result<u32, Refusal> {
        self.may_ask()?;
        let max = self.limits.subscriptions_max;
        let subscription = self.consumption.open(max as usize).ok_or_else(|| {
            Refusal::new(
                code::LIMIT_REACHED,
                format!("the server takes {max} subscriptions per connection"),
            )
        })?;
        subscribe.subscription = subscription;
        match encode_message(FrameType::SUBSCRIBE, 0, &subscribe) {
            Ok(frame) => {
                self.link.send(CONTROL, &frame);
                self.liveness.watch();
                Ok(subscription)
            }
            Err(error) => {
                self.consumption.close(subscription);
                Err(error.to_argument())
            }
        }
    }

    /// Lets the server send so many more messages and bytes of sections. What is left over of both,
    /// over all subscriptions, stays within the server's limits: the rest is not granted. Returns what
    /// was granted.
    pub fn grant(&mut self, subscription: u32, messages: u32, bytes: u32) -> (u32, u32) {
        let (messages, bytes) = self
            .consumption
            .grant(subscription, messages, bytes, &self.limits);
        if (messages, bytes) != (0, 0) {
            let credit = proto::Credit {
                subscription,
                messages,
                bytes,
            };
            self.send_message(FrameType::CREDIT, &credit);
        }
        (messages, bytes)
    }

    /// Ends a subscription; [`ClientEvent::Ended`] follows. Messages on their way are dropped, their
    /// leases run on.
    pub fn unsubscribe(&mut self, subscription: u32) {
        if self.consumption.close(subscription) {
            self.send_message(FrameType::UNSUBSCRIBE, &proto::Unsubscribe { subscription });
        }
    }

    /// Settles leases that came from a subscription of this connection, over or not. Returns the
    /// ticket under which [`ClientEvent::Settled`] will tell the outcome.
    ///
    /// # Errors
    /// A [`Refusal`]: `overloaded` while too many wait for an answer (none of it was sent; try again
    /// after the next outcome), or `invalid-argument` if the runs don't fit a frame.
    pub fn settle(&mut self, subscription: u32, runs: Vec<SettleRun>) -> Result<u64, Refusal> {
        if self.link.is_closed() || !self.welcomed {
            self.may_ask()?;
        }
        if self.settles_in_flight >= self.limits.settles_in_flight_max as usize {
            return Err(Refusal::new(
                code::OVERLOADED,
                format!("{} settlements wait for an answer", self.settles_in_flight),
            ));
        }
        let frame = SettleFrame {
            ticket: self.next_settle,
            subscription,
            runs,
        };
        let bytes = frame.encode().map_err(|error| error.to_argument())?;
        self.link.send(CONTROL, &bytes);
        self.liveness.watch();
        self.next_settle += 1;
        self.settles_in_flight += 1;
        Ok(frame.ticket)
    }

    /// Asks for a sign of life; [`ClientEvent::Pong`] repeats the token.
    pub fn ping(&mut self, token: u64) {
        self.send_message(FrameType::PING, &proto::Ping { token });
    }

    pub(super) fn on_control(&mut self, frame: &Frame) -> Result<(), WireError> {
        let kind = frame.prefix.kind;
        match kind {
            FrameType::WELCOME if !self.welcomed => self.on_welcome(frame.message()?)?,
            FrameType::REFUSED => {
                let refusal = Refusal::from_proto(frame.message()?);
                if self.welcomed {
                    self.fail(refusal);
                } else {
                    self.events.push_back(ClientEvent::Refused(refusal.clone()));
                    self.link.close(refusal.code, refusal.message);
                }
            }
            _ if frame.prefix.is_from_the_future() => {}
            _ if !self.welcomed => {
                return Err(WireError::Unexpected {
                    kind,
                    place: "before a welcome",
                });
            }
            FrameType::SUBSCRIBED => {
                let proto::Subscribed { subscription } = frame.message()?;
                self.consumption.known(subscription)?;
                self.events
                    .push_back(ClientEvent::Subscribed { subscription });
            }
            FrameType::SETTLED => self.on_settled(frame.message()?)?,
            FrameType::ENDED => {
                let ended: proto::Ended = frame.message()?;
                let subscription = ended.subscription;
                self.consumption.known(subscription)?;
                self.consumption.close(subscription);
                self.events.push_back(ClientEvent::Ended {
                    subscription,
                    refusal: ended.refused.map(Refusal::from_proto),
                });
            }
            FrameType::PONG => {
                let proto::Pong { token } = frame.message()?;
                self.events.push_back(ClientEvent::Pong { token });
            }
            FrameType::GOAWAY => {
                let message: proto::GoAway = frame.message()?;
                let refusal = message.reason.map_or_else(
                    || Refusal::from_code(code::SHUTTING_DOWN, "the server goes away"),
                    Refusal::from_proto,
                );
                self.going_away = Some(refusal.clone());
                self.events.push_back(ClientEvent::GoAway {
                    refusal,
                    drain_ms: message.drain_ms,
                });
            }
            FrameType::THROTTLE => {
                let message: proto::Throttle = frame.message()?;
                self.events.push_back(ClientEvent::Throttle {
                    refusal: message.reason.map_or_else(
                        || Refusal::from_code(code::OVERLOADED, "the server is busy"),
                        Refusal::from_proto,
                    ),
                    retry_ms: message.retry_ms,
                });
            }
            kind => {
                return Err(WireError::Unexpected {
                    kind,
                    place: "from a server on the control stream",
                });
            }
        }
        Ok(())
    }

    fn on_welcome(&mut self, welcome: proto::Welcome) -> Result<(), WireError> {
        if welcome.version != crate::limits::VERSION {
            return Err(WireError::Malformed {
                kind: FrameType::WELCOME,
                reason: format!("version {} wasn't offered", welcome.version),
            });
        }
        if let Some(told) = &welcome.limits {
            let pick = |told: u32, ours: &mut u32| {
                if told != 0 {
                    *ours = told;
                }
            };
            let ours = &mut self.limits;
            pick(told.section_bytes_max, &mut ours.section_bytes_max);
            pick(
                told.publishes_in_flight_max,
                &mut ours.publishes_in_flight_max,
            );
            pick(told.subscriptions_max, &mut ours.subscriptions_max);
            pick(told.streams_max, &mut ours.streams_max);
            pick(told.credit_messages_max, &mut ours.credit_messages_max);
            pick(told.credit_bytes_max, &mut ours.credit_bytes_max);
            pick(told.settles_in_flight_max, &mut ours.settles_in_flight_max);
            pick(told.idle_timeout_ms, &mut ours.idle_timeout_ms);
        }
        self.welcomed = true;
        self.events.push_back(ClientEvent::Welcome(welcome));
        Ok(())
    }

    fn on_settled(&mut self, settled: proto::Settled) -> Result<(), WireError> {
        let ticket = settled.ticket;
        if ticket == 0 || ticket >= self.next_settle || self.settles_in_flight == 0 {
            return Err(WireError::Unknown {
                what: "settle ticket",
                number: ticket,
            });
        }
        self.settles_in_flight -= 1;
        self.events.push_back(ClientEvent::Settled {
            ticket,
            outcome: settle_outcome(settled),
        });
        Ok(())
    }

    pub(super) fn send_message(&mut self, kind: FrameType, message: &impl prost::Message) {
        let frame = encode_message(kind, 0, message).expect("a few numbers fit a frame");
        self.link.send(CONTROL, &frame);
    }
}

/// One result per run, or why nothing took effect: of a settled frame, or a reply of that kind.
///
/// # Errors
/// The refusal in it.
pub fn settle_outcome(settled: proto::Settled) -> Result<Vec<Result<(), Code>>, Refusal> {
    match settled.refused {
        Some(refused) => Err(Refusal::from_proto(refused)),
        None => Ok(settled
            .results
            .into_iter()
            .map(|code| match u16::try_from(code) {
                Ok(0) => Ok(()),
                Ok(code) => Err(Code(code)),
                Err(_) => Err(code::INTERNAL),
            })
            .collect()),
    }
}
