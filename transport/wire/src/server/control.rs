//! Hello, subscriptions, credit and settlement, seen by the server.

use tidegate_model::{Code, code};

use super::{Phase, ServerSession};
use crate::event::ServerEvent;
use crate::frame::{Frame, FrameType};
use crate::limits::VERSION;
use crate::proto;
use crate::refusal::{Refusal, WireError};
use crate::settle::SettleFrame;
use crate::stream::CONTROL;

impl ServerSession {
    /// Lets the client in. The version is filled in.
    pub fn welcome(&mut self, mut welcome: proto::Welcome) {
        if matches!(self.phase, Phase::Authenticating(_)) {
            welcome.version = VERSION;
            self.phase = Phase::Ready;
            self.send_message(CONTROL, FrameType::WELCOME, &welcome);
            self.pump_if_resumed(CONTROL);
        }
    }

    /// Turns the client away and closes.
    pub fn refuse(&mut self, refusal: &Refusal) {
        if matches!(self.phase, Phase::Authenticating(_)) {
            self.send_message(CONTROL, FrameType::REFUSED, &refusal.to_proto());
            self.link.finish(CONTROL);
            self.link.close(refusal.code, refusal.message.clone());
        }
    }

    /// A subscription lives; credit events follow.
    pub fn subscribed(&mut self, subscription: u32) {
        if let Some(credits) = self.consumption.start(subscription) {
            self.send_message(
                CONTROL,
                FrameType::SUBSCRIBED,
                &proto::Subscribed { subscription },
            );
            if credits != (0, 0) {
                self.events.push_back(ServerEvent::Credit {
                    subscription,
                    messages: credits.0,
                    bytes: credits.1,
                });
            }
        }
    }

    /// A subscription is refused, or over; what was not sent of it is dropped.
    pub fn end_subscription(&mut self, subscription: u32, why: &Refusal) {
        if self.drop_subscription(subscription) {
            self.send_ended(subscription, Some(why));
        }
    }

    /// The outcome of a settle frame: a code per run in its order (`None` where it took effect), or
    /// why nothing of it did.
    pub fn settled(&mut self, ticket: u64, outcome: Result<&[Option<Code>], &Refusal>) {
        self.settles_in_flight = self.settles_in_flight.saturating_sub(1);
        let message = match outcome {
            Ok(results) => proto::Settled {
                ticket,
                results: results
                    .iter()
                    .map(|code| code.map_or(0, |code| u32::from(code.0)))
                    .collect(),
                refused: None,
            },
            Err(refusal) => proto::Settled {
                ticket,
                results: Vec::new(),
                refused: Some(refusal.to_proto()),
            },
        };
        self.send_message(CONTROL, FrameType::SETTLED, &message);
        self.pump_if_resumed(CONTROL);
    }

    pub(super) fn on_control(&mut self, frame: &Frame) -> Result<(), WireError> {
        let kind = frame.prefix.kind;
        if self.phase != Phase::Ready {
            if kind == FrameType::HELLO {
                return self.on_hello(frame);
            }
            if frame.prefix.is_from_the_future() {
                return Ok(());
            }
            self.fail(Refusal::new(
                code::AUTH_REQUIRED,
                format!("the first frame of a connection is a hello; this one is {kind}"),
            ));
            return Ok(());
        }
        match kind {
            FrameType::SUBSCRIBE => self.on_subscribe(frame.message()?),
            FrameType::CREDIT => self.on_credit(frame.message()?),
            FrameType::SETTLE => self.on_settle(SettleFrame::decode(frame)?),
            FrameType::UNSUBSCRIBE => self.on_unsubscribe(frame.message()?),
            FrameType::PING => {
                let proto::Ping { token } = frame.message()?;
                self.send_message(CONTROL, FrameType::PONG, &proto::Pong { token });
                Ok(())
            }
            _ if frame.prefix.is_from_the_future() => Ok(()),
            kind => Err(WireError::Unexpected {
                kind,
                place: "from a client on the control stream",
            }),
        }
    }

    fn on_hello(&mut self, frame: &Frame) -> Result<(), WireError> {
        let Phase::AwaitHello(deadline) = self.phase else {
            return Err(WireError::Unexpected {
                kind: frame.prefix.kind,
                place: "twice",
            });
        };
        let hello: proto::Hello = frame.message()?;
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            self.fail(Refusal::new(
                code::VERSION,
                format!(
                    "this server speaks version {VERSION}; the client speaks {} to {}",
                    hello.version_min, hello.version_max
                ),
            ));
            return Ok(());
        }
        self.phase = Phase::Authenticating(deadline);
        self.events.push_back(ServerEvent::Hello(hello));
        Ok(())
    }

    fn on_subscribe(&mut self, subscribe: proto::Subscribe) -> Result<(), WireError> {
        let subscription = subscribe.subscription;
        if let Some(why) = self.draining.clone() {
            self.consumption.note(subscription)?;
            self.send_ended(subscription, Some(&why));
            return Ok(());
        }
        match self.consumption.admit(subscription)? {
            Ok(()) => self.events.push_back(ServerEvent::Subscribe(subscribe)),
            Err(refusal) => self.send_ended(subscription, Some(&refusal)),
        }
        Ok(())
    }

    fn on_credit(&mut self, credit: proto::Credit) -> Result<(), WireError> {
        let proto::Credit {
            subscription,
            messages,
            bytes,
        } = credit;
        let is_something = messages > 0 || bytes > 0;
        if self.consumption.grant(subscription, messages, bytes)? && is_something {
            self.events.push_back(ServerEvent::Credit {
                subscription,
                messages,
                bytes,
            });
        }
        self.flush_subscription(subscription);
        Ok(())
    }

    fn on_settle(&mut self, settle: SettleFrame) -> Result<(), WireError> {
        self.consumption.known(settle.subscription)?;
        self.settles_in_flight += 1;
        self.events.push_back(ServerEvent::Settle(settle));
        Ok(())
    }

    fn on_unsubscribe(&mut self, unsubscribe: proto::Unsubscribe) -> Result<(), WireError> {
        let subscription = unsubscribe.subscription;
        self.consumption.known(subscription)?;
        if self.drop_subscription(subscription) {
            self.events
                .push_back(ServerEvent::Unsubscribe { subscription });
            self.send_ended(subscription, None);
        }
        Ok(())
    }

    pub(super) fn send_ended(&mut self, subscription: u32, why: Option<&Refusal>) {
        let message = proto::Ended {
            subscription,
            refused: why.map(Refusal::to_proto),
        };
        self.send_message(CONTROL, FrameType::ENDED, &message);
    }
}
