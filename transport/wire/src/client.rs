//! The client's end of a connection, the mirror of [`crate::server`]: the same four families of
//! methods, the same driver.

mod consume;
mod control;
mod liveness;
mod produce;
mod request;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tidegate_model::{Code, code};

use crate::event::{ClientEvent, Delivery};
use crate::frame::{Frame, FrameType, encode_message};
use crate::limits::{STREAM_OUTPUT_BYTES_MAX, VERSION};
use crate::link::{Link, OVERDUE};
use crate::proto;
use crate::refusal::{Refusal, WireError};
use crate::server::default_limits;
use crate::stream::{CONTROL, Output, PRIORITY_CONTROL, StreamId, Transmit};

pub use control::settle_outcome;

use consume::{ConsumeState, Consumption};
use liveness::Liveness;
use produce::ProducerState;
use request::RequestState;

/// One connection as the client sees it.
#[derive(Debug)]
pub struct ClientSession {
    link: Link<Role>,
    welcomed: bool,
    limits: proto::Limits,
    /// Why the server takes nothing new.
    going_away: Option<Refusal>,
    events: VecDeque<ClientEvent>,
    consumption: Consumption,
    next_settle: u64,
    settles_in_flight: usize,
    /// Produce and request streams that are open.
    streams: usize,
    liveness: Liveness,
    given_up: Option<Refusal>,
}

/// What a stream is for.
#[derive(Debug)]
enum Role {
    Control,
    Producer(ProducerState),
    Request(Box<RequestState>),
    /// The server's, its first frame not there yet.
    Unknown,
    Consume(ConsumeState),
}

impl ClientSession {
    /// A session for a connection that has just been established; it says hello. The versions are
    /// filled in.
    ///
    /// # Errors
    /// [`WireError::FrameTooLong`] if token, name and agent don't fit a hello.
    pub fn new(now: Duration, mut hello: proto::Hello) -> Result<Self, WireError> {
        hello.version_min = VERSION;
        hello.version_max = VERSION;
        let frame = encode_message(FrameType::HELLO, 0, &hello)?;
        let mut link = Link::new(false, now);
        let control = link.open(false, PRIORITY_CONTROL, Role::Control);
        debug_assert_eq!(control, CONTROL);
        link.send(control, &frame);
        Ok(Self {
            link,
            welcomed: false,
            limits: default_limits(),
            going_away: None,
            events: VecDeque::new(),
            consumption: Consumption::default(),
            next_settle: 1,
            settles_in_flight: 0,
            streams: 0,
            liveness: Liveness::default(),
            given_up: None,
        })
    }

    /// Whether the server has let us in.
    #[must_use]
    pub fn is_welcomed(&self) -> bool {
        self.welcomed
    }

    /// What the server accepts; this version's defaults before it said so.
    #[must_use]
    pub fn limits(&self) -> &proto::Limits {
        &self.limits
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.link.is_closed()
    }

    /// Whether the driver should read from this stream. When it turns true again,
    /// [`Output::Readable`] says so.
    #[must_use]
    pub fn wants_data(&self, stream: StreamId) -> bool {
        self.link.wants_data(stream)
    }

    /// Bytes waiting to be transmitted, over all streams.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.link.queued()
    }

    /// The server opened a stream.
    pub fn handle_opened(&mut self, now: Duration, stream: StreamId) {
        self.link.set_now(now);
        if self.link.is_closed() || !self.link.is_new_from_peer(stream) {
            return;
        }
        self.link.accept(stream, Role::Unknown);
        if !stream.is_uni() || !self.welcomed {
            self.link.abandon(stream, code::PROTOCOL);
        }
    }

    /// Bytes came on a stream, in order.
    pub fn handle_data(&mut self, now: Duration, stream: StreamId, chunk: Bytes) {
        self.link.set_now(now);
        self.liveness.heard(self.link.now(), stream);
        if self.link.push(stream, chunk) {
            self.pump(stream);
        }
    }

    /// The server has sent its last byte on a stream.
    pub fn handle_finished(&mut self, now: Duration, stream: StreamId) {
        self.link.set_now(now);
        if self.link.push_fin(stream) {
            self.pump(stream);
        }
    }

    /// The server abandoned its side of a stream.
    pub fn handle_reset(&mut self, now: Duration, stream: StreamId, code: Code) {
        self.link.set_now(now);
        let why = Refusal::from_code(code, "the server reset the stream");
        if stream == CONTROL {
            self.fail(why);
            return;
        }
        self.lost(stream, &why);
        self.link.peer_reset(stream);
        self.link.reset(stream, code::CANCELLED);
    }

    /// The server wants no more of what we send on a stream. What it sends itself still counts.
    pub fn handle_stopped(&mut self, now: Duration, stream: StreamId, code: Code) {
        self.link.set_now(now);
        if stream == CONTROL {
            self.fail(Refusal::from_code(
                code,
                "the server stopped reading the control stream",
            ));
        } else {
            self.link.reset(stream, code);
        }
    }

    /// The connection is gone, closed by the server (its code and reason) or broken: every stream is
    /// over, and says so.
    pub fn handle_lost(&mut self, now: Duration, why: &Refusal) {
        self.link.set_now(now);
        let mut streams: Vec<StreamId> = self.link.roles().map(|(stream, _)| stream).collect();
        streams.sort_unstable();
        for stream in streams {
            if stream != CONTROL {
                let is_producer = matches!(self.link.role_mut(stream), Some(Role::Producer(_)));
                self.lost(stream, why);
                // An orderly end, which streams have when a connection is closed, would say that nothing
                // is sent again.
                if is_producer {
                    self.link.reset(stream, code::CANCELLED);
                }
            }
        }
        for subscription in self.consumption.drain() {
            self.events.push_back(ClientEvent::Ended {
                subscription,
                refusal: Some(why.clone()),
            });
        }
        if !self.welcomed && !self.link.is_closed() {
            self.events.push_back(ClientEvent::Refused(why.clone()));
        }
        self.link.close(why.code, why.message.clone());
    }

    /// Time passed: called at or after [`Self::poll_timeout`]'s instant.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.link.set_now(now);
        for stream in self.link.sweep() {
            let why = Refusal::new(OVERDUE, "a frame from the server made no progress");
            if stream == CONTROL {
                self.fail(why);
            } else {
                self.lost(stream, &why);
                self.link.abandon(stream, OVERDUE);
            }
        }
        self.look_for_life();
    }

    /// The next thing to tell the application.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// The next thing for the driver to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.link.poll_output()
    }

    /// When [`Self::handle_timeout`] wants to be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let life = self.liveness_deadline();
        self.link.next_deadline().into_iter().chain(life).min()
    }

    /// The next piece to send on a stream; asked until `None` after [`Output::Writable`], as fast as
    /// the transport takes it.
    pub fn transmit(&mut self, stream: StreamId) -> Option<Transmit> {
        self.link.transmit(stream)
    }

    /// Ends the connection from this side.
    pub fn close(&mut self) {
        self.link.close(Code(0), "the client is done".to_owned());
    }

    fn pump(&mut self, stream: StreamId) {
        loop {
            let step = match self.link.next_frame(stream) {
                Ok(Some(frame)) => self.on_frame(stream, &frame),
                Ok(None) => {
                    match self.link.take_end(stream) {
                        Ok(true) => {
                            self.on_end(stream);
                            self.link.retire(stream);
                        }
                        Ok(false) => {}
                        Err(error) => self.broken(stream, &error),
                    }
                    return;
                }
                Err(error) => Err(error),
            };
            if let Err(error) = step {
                self.broken(stream, &error);
                return;
            }
        }
    }

    fn on_frame(&mut self, stream: StreamId, frame: &Frame) -> Result<(), WireError> {
        match self.link.role(stream) {
            Some(Role::Control) => self.on_control(frame),
            Some(Role::Producer(_)) => self.on_produce(stream, frame),
            Some(Role::Request(_)) => self.on_answer(stream, frame),
            Some(Role::Unknown) if frame.prefix.kind == FrameType::ALIAS => {
                if let Some(role) = self.link.role_mut(stream) {
                    *role = Role::Consume(ConsumeState::default());
                }
                self.on_consume(stream, frame)
            }
            Some(Role::Unknown) => {
                // A kind of stream from the future (RFC 9114 section 9 has the same rule).
                self.link.stop(stream, code::UNSUPPORTED);
                Ok(())
            }
            Some(Role::Consume(_)) => self.on_consume(stream, frame),
            None => Ok(()),
        }
    }

    fn on_end(&mut self, stream: StreamId) {
        if stream == CONTROL {
            let why = Refusal::new(code::UNREACHABLE, "the server ended the control stream");
            self.fail(why);
        } else {
            let why = match self.link.role(stream) {
                Some(Role::Producer(producer)) if producer.is_settled() => {
                    Refusal::new(code::CANCELLED, "the producer is closed")
                }
                _ => Refusal::new(
                    code::PROTOCOL,
                    "the server ended the stream before it answered",
                ),
            };
            self.lost(stream, &why);
            self.link.finish(stream);
        }
    }

    fn broken(&mut self, stream: StreamId, error: &WireError) {
        let mut refusal = error.to_refusal();
        refusal.message = format!("stream {}: {}", stream.0, refusal.message);
        self.fail(refusal);
    }

    /// Ends the connection because of what the server did.
    fn fail(&mut self, why: Refusal) {
        if !self.link.is_closed() {
            self.events.push_back(ClientEvent::Closing(why.clone()));
            let now = self.link.now();
            self.handle_lost(now, &why);
        }
    }

    /// Tells the application that a stream is over without what it waited for; once per stream.
    fn lost(&mut self, stream: StreamId, why: &Refusal) {
        let refusal = why.clone();
        let event = match self.link.role_mut(stream) {
            Some(Role::Producer(producer)) => producer
                .leave()
                .then_some(ClientEvent::ProducerClosed { stream, refusal }),
            Some(Role::Request(request)) => request
                .leave()
                .then_some(ClientEvent::RequestRefused { stream, refusal }),
            _ => None,
        };
        if let Some(event) = event {
            self.streams -= 1;
            self.events.push_back(event);
        }
    }

    /// Whether a new stream may be opened.
    fn may_open(&self) -> Result<(), Refusal> {
        self.may_ask()?;
        if self.streams >= self.limits.streams_max as usize {
            return Err(Refusal::new(
                code::OVERLOADED,
                format!(
                    "the server takes {} produce and request streams at once",
                    self.limits.streams_max
                ),
            )
            .hint("wait for an answer, or open another connection"));
        }
        Ok(())
    }

    /// Whether anything new may be asked for.
    fn may_ask(&self) -> Result<(), Refusal> {
        if let Some(why) = &self.going_away {
            return Err(why.clone());
        }
        if self.link.is_closed() || !self.welcomed {
            return Err(Refusal::new(
                code::UNREACHABLE,
                "the connection isn't established",
            ));
        }
        Ok(())
    }

    fn output_is_full(&self, stream: StreamId) -> bool {
        self.link.output_len(stream) > STREAM_OUTPUT_BYTES_MAX
    }
}
