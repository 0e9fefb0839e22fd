//! The server's end of a connection.
//!
//! The methods fall in four families, as in quinn-proto: getters; `handle_*`, by which the driver
//! tells what happened; mutators, by which the application answers events; and `poll_*` with
//! [`ServerSession::transmit`], which the driver calls after each of the others until they give `None`.
//! Time is a [`Duration`] since any origin that the driver keeps; it is told, never asked for.

mod consume;
mod control;
mod produce;
mod request;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tidegate_model::{Code, code};

use crate::event::ServerEvent;
use crate::frame::{Frame, FrameType, encode_message};
use crate::limits::{
    CONNECTION_OUTPUT_BYTES_MAX, CONNECTION_PARTIAL_BYTES_MAX, CREDIT_BYTES_MAX,
    CREDIT_MESSAGES_MAX, PREAUTH_BYTES_MAX, PREAUTH_TIME_MAX, PUBLISHES_IN_FLIGHT_MAX,
    SETTLES_IN_FLIGHT_MAX, STREAM_OUTPUT_BYTES_MAX, STREAMS_MAX, SUBSCRIPTIONS_MAX,
};
use crate::link::{Link, OVERDUE};
use crate::proto;
use crate::refusal::{Refusal, WireError};
use crate::stream::{CONTROL, Output, StreamId, Transmit};

use consume::Consumption;
use produce::ProducerState;

/// The limits that a server of this version announces; `idle_timeout_ms` is the driver's to fill in.
#[must_use]
pub fn default_limits() -> proto::Limits {
    let number = |n: usize| u32::try_from(n).expect("limits are below 2^32");
    proto::Limits {
        section_bytes_max: number(tidegate_model::limits::SECTION_BYTES_MAX),
        publishes_in_flight_max: number(PUBLISHES_IN_FLIGHT_MAX),
        subscriptions_max: number(SUBSCRIPTIONS_MAX),
        streams_max: number(STREAMS_MAX),
        credit_messages_max: CREDIT_MESSAGES_MAX,
        credit_bytes_max: CREDIT_BYTES_MAX,
        settles_in_flight_max: number(SETTLES_IN_FLIGHT_MAX),
        idle_timeout_ms: 0,
    }
}

/// One connection as the server sees it.
#[derive(Debug)]
pub struct ServerSession {
    link: Link<Role>,
    phase: Phase,
    /// Bytes that came before authentication.
    preauth_bytes: usize,
    /// Why new work is refused, once the connection drains.
    draining: Option<Refusal>,
    events: VecDeque<ServerEvent>,
    consumption: Consumption,
    settles_in_flight: usize,
    /// Some stream was held back because too much waits to be sent.
    backlogged: bool,
    /// Answers that are due on produce and request streams.
    work_in_flight: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody knows who it is; until this instant.
    AwaitHello(Duration),
    /// The application is finding out; until this instant.
    Authenticating(Duration),
    Ready,
}

/// What a stream is for, known from its first frame.
#[derive(Debug)]
enum Role {
    Control,
    /// A two-way stream without a frame yet.
    Unknown,
    Producer(ProducerState),
    /// A request; whether its answer is still due.
    Request {
        due: bool,
    },
    /// One of ours.
    Consume,
}

impl ServerSession {
    /// A session for a connection that has just been established.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self {
            link: Link::new(true, now),
            phase: Phase::AwaitHello(now + PREAUTH_TIME_MAX),
            preauth_bytes: 0,
            draining: None,
            events: VecDeque::new(),
            consumption: Consumption::default(),
            settles_in_flight: 0,
            backlogged: false,
            work_in_flight: 0,
        }
    }

    /// Whether the client has been welcomed.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether the connection is over: [`Output::Close`] was or will be given, nothing else follows.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.link.is_closed()
    }

    /// Whether nothing awaits an answer and everything was transmitted; after
    /// [`Self::go_away`] the driver may then close.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.work_in_flight == 0 && self.settles_in_flight == 0 && self.link.queued() == 0
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

    /// The client opened a stream.
    pub fn handle_opened(&mut self, now: Duration, stream: StreamId) {
        self.link.set_now(now);
        if self.link.is_closed() || !self.link.is_new_from_peer(stream) {
            return;
        }
        if stream == CONTROL {
            self.link.accept(stream, Role::Control);
        } else if !self.is_authenticated() {
            self.fail(Refusal::new(
                code::PREAUTH_LIMIT,
                "before authentication a client has one stream, and it opened another",
            ));
        } else {
            self.link.accept(stream, Role::Unknown);
            if stream.is_uni() {
                self.link.stop(stream, code::UNSUPPORTED);
            } else if self.is_crowded() {
                self.link.abandon(stream, code::OVERLOADED);
            }
        }
    }

    /// Bytes came on a stream, in order.
    pub fn handle_data(&mut self, now: Duration, stream: StreamId, chunk: Bytes) {
        self.link.set_now(now);
        if !self.is_authenticated() && !self.link.is_closed() {
            self.preauth_bytes = self.preauth_bytes.saturating_add(chunk.len());
            if self.preauth_bytes > PREAUTH_BYTES_MAX {
                let sent = self.preauth_bytes;
                self.fail(Refusal::new(
                    code::PREAUTH_LIMIT,
                    format!(
                        "before authentication a client may send {PREAUTH_BYTES_MAX} bytes; it sent {sent}"
                    ),
                ));
                return;
            }
        }
        if self.link.push(stream, chunk) {
            self.pump(stream);
            // Frames of the control stream are small, and nothing goes without it.
            if self.link.partial() > CONNECTION_PARTIAL_BYTES_MAX && stream != CONTROL {
                self.leave(stream);
                self.link.abandon(stream, code::OVERLOADED);
            }
        }
    }

    /// The client has sent its last byte on a stream.
    pub fn handle_finished(&mut self, now: Duration, stream: StreamId) {
        self.link.set_now(now);
        if self.link.push_fin(stream) {
            self.pump(stream);
        }
    }

    /// The client abandoned its side of a stream, with any code.
    pub fn handle_reset(&mut self, now: Duration, stream: StreamId, code: Code) {
        self.link.set_now(now);
        if stream == CONTROL {
            self.control_lost(code);
        } else {
            let open = self.leave(stream);
            self.link.peer_reset(stream);
            if open {
                self.link.reset(stream, code::CANCELLED);
            }
        }
    }

    /// The client wants no more of what we send on a stream, with any code.
    pub fn handle_stopped(&mut self, now: Duration, stream: StreamId, code: Code) {
        self.link.set_now(now);
        if stream == CONTROL {
            self.control_lost(code);
            return;
        }
        self.leave(stream);
        if matches!(self.link.role(stream), Some(Role::Consume)) {
            self.consume_stopped(stream);
        }
        self.link.abandon(stream, code::CANCELLED);
    }

    /// The connection is gone: whatever is open ends, and says so.
    pub fn handle_lost(&mut self, now: Duration) {
        self.link.set_now(now);
        let mut streams: Vec<StreamId> = self.link.roles().map(|(stream, _)| stream).collect();
        streams.sort_unstable();
        for stream in streams {
            self.leave(stream);
        }
        for subscription in self.consumption.numbers() {
            self.drop_subscription(subscription);
            self.events
                .push_back(ServerEvent::Unsubscribe { subscription });
        }
        self.link
            .close(code::CANCELLED, "the client is gone".to_owned());
    }

    /// Time passed: called at or after [`Self::poll_timeout`]'s instant.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.link.set_now(now);
        if let Phase::AwaitHello(deadline) | Phase::Authenticating(deadline) = self.phase
            && deadline <= self.link.now()
        {
            self.fail(Refusal::new(
                code::AUTH_TIMEOUT,
                format!(
                    "the client didn't authenticate within {} seconds",
                    PREAUTH_TIME_MAX.as_secs()
                ),
            ));
            return;
        }
        for stream in self.link.sweep() {
            if stream == CONTROL {
                self.fail(Refusal::new(
                    OVERDUE,
                    "a frame on the control stream made no progress",
                ));
            } else {
                self.leave(stream);
                self.link.abandon(stream, OVERDUE);
            }
        }
    }

    /// The next thing to tell the application.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// The next thing for the driver to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.link.poll_output()
    }

    /// When [`Self::handle_timeout`] wants to be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.link.is_closed() {
            return None;
        }
        let auth = match self.phase {
            Phase::AwaitHello(deadline) | Phase::Authenticating(deadline) => Some(deadline),
            Phase::Ready => None,
        };
        auth.into_iter().chain(self.link.next_deadline()).min()
    }

    /// The next piece to send on a stream; asked until `None` after [`Output::Writable`], as fast as
    /// the transport takes it.
    pub fn transmit(&mut self, stream: StreamId) -> Option<Transmit> {
        let piece = self.link.transmit(stream);
        if piece.is_some() {
            self.pump_if_resumed(stream);
            if self.backlogged && !self.is_backlogged() {
                self.backlogged = false;
                for stream in self.link.paused() {
                    self.pump_if_resumed(stream);
                }
            }
        }
        piece
    }

    /// The server takes nothing new; what is in flight is still answered. New requests, producers,
    /// subscriptions and batches are refused with `why`.
    pub fn go_away(&mut self, why: &Refusal, drain: Duration) {
        if self.draining.is_none() {
            self.draining = Some(why.clone());
            let message = proto::GoAway {
                reason: Some(why.to_proto()),
                drain_ms: u32::try_from(drain.as_millis()).unwrap_or(u32::MAX),
            };
            self.send_message(CONTROL, FrameType::GOAWAY, &message);
        }
    }

    /// Tells the client, for its display, that it is read more slowly.
    pub fn throttle(&mut self, why: &Refusal, retry: Duration) {
        let message = proto::Throttle {
            reason: Some(why.to_proto()),
            retry_ms: u32::try_from(retry.as_millis()).unwrap_or(u32::MAX),
        };
        self.send_message(CONTROL, FrameType::THROTTLE, &message);
    }

    /// Ends the connection.
    pub fn close(&mut self, why: &Refusal) {
        self.link.close(why.code, why.message.clone());
    }

    /// Whether the client has more streams open than it may. One that was answered doesn't count
    /// against it, as its end may still be on its way, unless these pile up.
    fn is_crowded(&self) -> bool {
        let (mut due, mut all) = (0, 0);
        for (_, role) in self.link.roles() {
            match role {
                Role::Control | Role::Consume => {}
                Role::Request { due: false } => all += 1,
                Role::Unknown | Role::Producer(_) | Role::Request { due: true } => {
                    due += 1;
                    all += 1;
                }
            }
        }
        due > STREAMS_MAX || all > 2 * STREAMS_MAX
    }

    /// Reads what a stream holds, as far as it isn't held back.
    fn pump(&mut self, stream: StreamId) {
        loop {
            if self.link.is_closed() {
                return;
            }
            let held = self.is_held_back(stream);
            self.backlogged |= held && self.is_backlogged();
            self.link.set_paused(stream, held);
            if held {
                return;
            }
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

    /// Pumps a stream that was held back and isn't any more.
    fn pump_if_resumed(&mut self, stream: StreamId) {
        if self.link.is_paused(stream) && !self.is_held_back(stream) {
            self.pump(stream);
        }
    }

    fn is_held_back(&self, stream: StreamId) -> bool {
        if self.link.output_len(stream) > STREAM_OUTPUT_BYTES_MAX {
            return true;
        }
        match self.link.role(stream) {
            Some(Role::Control) => {
                matches!(self.phase, Phase::Authenticating(_))
                    || self.settles_in_flight >= SETTLES_IN_FLIGHT_MAX
                    || self.is_backlogged()
            }
            // Credit and requests both ask for more output.
            Some(Role::Unknown) => self.is_backlogged(),
            Some(Role::Producer(producer)) => producer.is_full(),
            _ => false,
        }
    }

    /// Whether the client reads so slowly that nothing more is prepared for it.
    fn is_backlogged(&self) -> bool {
        self.link.queued() > CONNECTION_OUTPUT_BYTES_MAX
    }

    fn on_frame(&mut self, stream: StreamId, frame: &Frame) -> Result<(), WireError> {
        match self.link.role(stream) {
            Some(Role::Control) => self.on_control(frame),
            Some(Role::Unknown) => match frame.prefix.kind {
                FrameType::OPEN_PRODUCER => self.on_open_producer(stream, frame),
                FrameType::REQUEST => self.on_request(stream, frame),
                _ if frame.prefix.may_ignore() => {
                    self.link.abandon(stream, code::UNSUPPORTED);
                    Ok(())
                }
                kind => Err(WireError::Unexpected {
                    kind,
                    place: "as the first of a stream",
                }),
            },
            Some(Role::Producer(_)) => self.on_produce(stream, frame),
            Some(Role::Request { .. }) if frame.prefix.may_ignore() => Ok(()),
            Some(Role::Request { .. }) => Err(WireError::Unexpected {
                kind: frame.prefix.kind,
                place: "after a request",
            }),
            Some(Role::Consume) | None => Ok(()),
        }
    }

    /// The peer ended its sending side between frames.
    fn on_end(&mut self, stream: StreamId) {
        match self.link.role(stream) {
            Some(Role::Control) => self.control_lost(code::CANCELLED),
            Some(Role::Unknown) => self.link.finish(stream),
            Some(Role::Producer(_)) => self.finish_producer(stream),
            Some(Role::Request { .. } | Role::Consume) | None => {}
        }
    }

    /// The peer broke the protocol: on the control stream that ends the connection, elsewhere too,
    /// since it can't be trusted to mean what it says.
    fn broken(&mut self, stream: StreamId, error: &WireError) {
        let mut refusal = error.to_refusal();
        refusal.message = format!("stream {}: {}", stream.0, refusal.message);
        self.fail(refusal);
    }

    fn control_lost(&mut self, code: Code) {
        if !self.link.is_closed() {
            self.link.close(code, "the control stream ended".to_owned());
        }
    }

    /// Ends the connection because of what the peer did.
    fn fail(&mut self, refusal: Refusal) {
        if self.link.is_closed() {
            return;
        }
        self.send_message(CONTROL, FrameType::REFUSED, &refusal.to_proto());
        self.link.finish(CONTROL);
        self.link.close(refusal.code, refusal.message.clone());
        self.events.push_back(ServerEvent::Closing(refusal));
    }

    /// Tells the application that a produce or request stream is over before its time; whether the
    /// stream still had something to answer.
    fn leave(&mut self, stream: StreamId) -> bool {
        match self.link.role_mut(stream) {
            Some(Role::Producer(producer)) => {
                let Some(due) = producer.leave() else {
                    return false;
                };
                self.work_in_flight -= due;
                self.events.push_back(ServerEvent::ProducerClosed {
                    stream,
                    is_done: false,
                });
                true
            }
            Some(Role::Request { due }) => {
                if !std::mem::take(due) {
                    return false;
                }
                self.work_in_flight -= 1;
                self.events
                    .push_back(ServerEvent::RequestCancelled { stream });
                true
            }
            Some(Role::Unknown) => true,
            Some(Role::Control | Role::Consume) | None => false,
        }
    }

    /// Queues a message that is known to fit: texts are cut, lists are bounded.
    fn send_message(&mut self, stream: StreamId, kind: FrameType, message: &impl prost::Message) {
        let frame = encode_message(kind, 0, message).expect("a bounded message fits its frame");
        self.link.send(stream, &frame);
    }
}
