//! A server session before a client that may send anything.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tidegate_model::{Offset, QueueId, Sequence, ShardId, code};
use tidegate_wire::event::{Delivery, Origin};
use tidegate_wire::limits::{PREAUTH_BYTES_MAX, PUBLISHES_IN_FLIGHT_MAX, SETTLES_IN_FLIGHT_MAX};
use tidegate_wire::{
    DeliveryHeader, FrameType, PublishHeader, PublishOutcome, Refusal, ServerEvent, ServerSession,
    SettleFrame, encode_message, proto, server,
};

use super::{
    APPLICATION, DATA, Driver, FINISH, OPEN_TWO_WAYS, RESET, STALL, STEPS_MAX, STOP, Script, WAIT,
    push_data,
};

const ANSWER: u8 = APPLICATION;
const DELIVER: u8 = APPLICATION + 1;
const GO_AWAY: u8 = APPLICATION + 2;
const THROTTLE: u8 = APPLICATION + 3;
const END: u8 = APPLICATION + 4;
const STEPS: u8 = APPLICATION + 5;

/// Runs a script; at its end everything that waits is answered, and nothing may be left over.
///
/// # Panics
/// If the session breaks a promise to its driver or its application.
pub fn run(input: &[u8]) {
    let mut script = Script { rest: input };
    let mut play = Play {
        driver: Driver::new(ServerSession::new(Duration::ZERO)),
        pending: VecDeque::new(),
        received: 0,
        closing_told: false,
    };
    for _ in 0..STEPS_MAX {
        let Some(step) = script.byte() else { break };
        play.step(step % STEPS, &mut script);
        play.settle();
        if play.driver.session.is_closed() {
            return;
        }
    }
    play.finish();
}

struct Play {
    driver: Driver<ServerSession>,
    /// What the application has not answered.
    pending: VecDeque<ServerEvent>,
    /// Bytes of the peer so far.
    received: usize,
    closing_told: bool,
}

impl Play {
    fn step(&mut self, step: u8, script: &mut Script<'_>) {
        let before = script.rest.len();
        if self.driver.step(step, script) {
            if step == DATA {
                self.received += before - script.rest.len();
            }
            return;
        }
        let session = &mut self.driver.session;
        let why = Refusal::new(code::OVERLOADED, "a reason");
        match step {
            ANSWER => {
                let place = usize::from(script.byte().unwrap_or(0)) % self.pending.len().max(1);
                let yes = script.byte().unwrap_or(0) != 0;
                if let Some(event) = self.pending.remove(place) {
                    self.answer(event, yes);
                }
            }
            DELIVER => {
                let subscription = u32::from(script.byte().unwrap_or(0));
                let count = script.byte().unwrap_or(0);
                session.deliver(subscription, deliveries(count));
            }
            GO_AWAY => session.go_away(&why, Duration::from_secs(1)),
            THROTTLE => session.throttle(&why, Duration::from_secs(1)),
            _ => session.end_subscription(u32::from(script.byte().unwrap_or(0)), &why),
        }
    }

    fn answer(&mut self, event: ServerEvent, yes: bool) {
        let session = &mut self.driver.session;
        let why = Refusal::new(code::OVERLOADED, "a reason").hint("try again");
        match event {
            ServerEvent::Hello(_) if yes => session.welcome(proto::Welcome {
                limits: Some(server::default_limits()),
                ..proto::Welcome::default()
            }),
            ServerEvent::Hello(_) => session.refuse(&why),
            ServerEvent::Subscribe(subscribe) if yes => session.subscribed(subscribe.subscription),
            ServerEvent::Subscribe(subscribe) => {
                session.end_subscription(subscribe.subscription, &why);
            }
            ServerEvent::Settle(SettleFrame { ticket, runs, .. }) if yes => {
                session.settled(ticket, Ok(&vec![None; runs.len()]));
            }
            ServerEvent::Settle(settle) => session.settled(settle.ticket, Err(&why)),
            ServerEvent::OpenProducer { stream, .. } if yes => {
                session.producer_opened(stream, &proto::ProducerOpened::default());
            }
            ServerEvent::OpenProducer { stream, .. } => session.refuse_producer(stream, &why),
            ServerEvent::Publish { stream, header, .. } if yes => {
                let outcome = PublishOutcome {
                    ticket: header.ticket,
                    ..PublishOutcome::default()
                };
                session.published(stream, &[outcome]);
            }
            ServerEvent::Publish { stream, header, .. } => {
                session.publish_refused(stream, header.ticket, &why);
            }
            ServerEvent::Request { stream, .. } if yes => {
                let kind = proto::ReplyKind::Received(proto::Received::default());
                session.reply(stream, kind, deliveries(3));
            }
            ServerEvent::Request { stream, .. } => session.refuse_request(stream, &why),
            ServerEvent::Credit { .. }
            | ServerEvent::Unsubscribe { .. }
            | ServerEvent::ProducerClosed { .. }
            | ServerEvent::RequestCancelled { .. }
            | ServerEvent::Closing(_) => {}
        }
    }

    /// Does what the session asks for, and takes in what it tells, until it is quiet.
    fn settle(&mut self) {
        self.driver.drain();
        let was_let_in = self.driver.session.is_authenticated();
        while let Some(event) = self.driver.session.poll_event() {
            let ends_a_stream = matches!(
                event,
                ServerEvent::ProducerClosed { .. } | ServerEvent::RequestCancelled { .. }
            );
            assert!(
                !self.closing_told || ends_a_stream,
                "an event after the last: {event:?}"
            );
            match &event {
                ServerEvent::Hello(_) => assert!(!was_let_in, "hello twice"),
                ServerEvent::Closing(_) => self.closing_told = true,
                other => assert!(was_let_in, "before authentication: {other:?}"),
            }
            match event {
                ServerEvent::ProducerClosed { stream, .. } => self.pending.retain(|waiting| {
                    !matches!(waiting,
                        ServerEvent::Publish { stream: s, .. }
                        | ServerEvent::OpenProducer { stream: s, .. } if *s == stream)
                }),
                ServerEvent::RequestCancelled { stream } => self.pending.retain(|waiting| {
                    !matches!(waiting, ServerEvent::Request { stream: s, .. } if *s == stream)
                }),
                ServerEvent::Credit { .. }
                | ServerEvent::Unsubscribe { .. }
                | ServerEvent::Closing(_) => {}
                event => self.pending.push_back(event),
            }
        }
        let settles = self
            .pending
            .iter()
            .filter(|e| matches!(e, ServerEvent::Settle(_)))
            .count();
        assert!(settles <= SETTLES_IN_FLIGHT_MAX);
        assert!(self.pending.len() <= STEPS_MAX * PUBLISHES_IN_FLIGHT_MAX);
        if !was_let_in && !self.driver.session.is_closed() {
            // The script's own framing is counted in, so this is a little too strict, never too lax.
            assert!(self.received <= PREAUTH_BYTES_MAX + STEPS_MAX * 4);
        }
    }

    /// Answers everything, lets the rest be sent, and expects the session to be idle.
    fn finish(mut self) {
        self.driver.stalled = false;
        self.settle();
        while let Some(event) = self.pending.pop_front() {
            self.answer(event, true);
            self.settle();
            if self.driver.session.is_closed() {
                return;
            }
        }
        assert!(self.driver.session.is_idle(), "everything was answered");
        assert_eq!(self.driver.session.queued_bytes(), 0);
    }
}

fn deliveries(count: u8) -> Vec<Delivery> {
    (0..count % 8)
        .map(|index| Delivery {
            origin: Origin {
                queue_index: u32::from(index % 3),
                queue: QueueId(u64::from(index % 3) + 1),
                shard: ShardId(1),
            },
            header: DeliveryHeader {
                base_offset: Offset(u64::from(index)),
                count: 1,
                span: 1,
                ..DeliveryHeader::default()
            },
            section: Bytes::from(vec![index; 40]),
        })
        .collect()
}

/// Conversations of a well-behaved client, and of some others.
///
/// # Panics
/// If a seed can't be built, which its test would show.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut produce = let_in();
    produce.push(OPEN_TWO_WAYS);
    push_data(
        &mut produce,
        1,
        &frame(FrameType::OPEN_PRODUCER, &proto::OpenProducer::default()),
    );
    produce.extend_from_slice(&[ANSWER, 0, 1]);
    for ticket in 1..4 {
        push_data(&mut produce, 1, &publish(ticket));
    }
    let mut produced = produce.clone();
    produced.extend_from_slice(&[ANSWER, 2, 1, ANSWER, 0, 0, FINISH, 1, ANSWER, 0, 1]);

    let mut consume = let_in();
    push_data(&mut consume, 0, &subscribe(1));
    push_data(&mut consume, 0, &credit(1));
    consume.extend_from_slice(&[ANSWER, 0, 1, DELIVER, 1, 5]);
    let mut stopped = consume.clone();
    stopped.extend_from_slice(&[STOP, 1, 0, 0, DELIVER, 1, 1]);
    let mut ended = consume.clone();
    ended.extend_from_slice(&[STALL, DELIVER, 1, 7, END, 1, STALL]);
    push_data(&mut consume, 0, &settle(1));
    push_data(
        &mut consume,
        0,
        &frame(FrameType::PING, &proto::Ping { token: 7 }),
    );
    consume.extend_from_slice(&[ANSWER, 0, 1]);
    let unsubscribe = proto::Unsubscribe { subscription: 1 };
    push_data(
        &mut consume,
        0,
        &frame(FrameType::UNSUBSCRIBE, &unsubscribe),
    );

    let mut ask = let_in();
    ask.push(OPEN_TWO_WAYS);
    let describe = proto::Request {
        kind: Some(proto::RequestKind::DescribeServer(proto::Empty {})),
    };
    push_data(&mut ask, 1, &frame(FrameType::REQUEST, &describe));
    ask.extend_from_slice(&[FINISH, 1]);
    let mut cancelled = ask.clone();
    cancelled.extend_from_slice(&[STOP, 1, 9, 0]);
    ask.extend_from_slice(&[ANSWER, 0, 1]);

    let mut drained = produce.clone();
    drained.extend_from_slice(&[GO_AWAY, THROTTLE]);
    push_data(&mut drained, 1, &publish(9));
    drained.extend_from_slice(&[RESET, 1, 0, 0]);

    let mut slow = vec![OPEN_TWO_WAYS];
    push_data(&mut slow, 0, &hello()[..5]);
    slow.extend_from_slice(&[WAIT, 0x88, 0x13, WAIT, 1, 0]);

    let mut early = vec![OPEN_TWO_WAYS, OPEN_TWO_WAYS];
    push_data(&mut early, 0, &hello());

    let mut garbage = vec![OPEN_TWO_WAYS];
    push_data(
        &mut garbage,
        0,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    [
        ("let-in", let_in()),
        ("produce", produced),
        ("consume", consume),
        ("consume-stopped", stopped),
        ("consume-ended", ended),
        ("ask", ask),
        ("ask-cancelled", cancelled),
        ("go-away", drained),
        ("slow-hello", slow),
        ("two-streams-too-early", early),
        ("garbage", garbage),
    ]
    .map(|(name, script)| (name.to_owned(), script))
    .to_vec()
}

fn let_in() -> Vec<u8> {
    let mut script = vec![OPEN_TWO_WAYS];
    push_data(&mut script, 0, &hello());
    script.extend_from_slice(&[ANSWER, 0, 1]);
    script
}

fn frame(kind: FrameType, message: &impl Message) -> Vec<u8> {
    encode_message(kind, 0, message)
        .expect("a seed is small")
        .to_vec()
}

fn hello() -> Vec<u8> {
    let hello = proto::Hello {
        version_min: 1,
        version_max: 1,
        auth: Some(proto::Auth::Key(proto::KeyProof {
            public_key: vec![7; 32].into(),
            signature: vec![9; 64].into(),
        })),
        ..proto::Hello::default()
    };
    frame(FrameType::HELLO, &hello)
}

fn publish(ticket: u64) -> Vec<u8> {
    let header = PublishHeader {
        ticket,
        sequence: Sequence(ticket),
        count: 1,
        span: 1,
        ..PublishHeader::default()
    };
    let mut bytes = header.encode(8).expect("a seed is small").to_vec();
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

fn subscribe(subscription: u32) -> Vec<u8> {
    let subscribe = proto::Subscribe {
        subscription,
        ..proto::Subscribe::default()
    };
    frame(FrameType::SUBSCRIBE, &subscribe)
}

fn credit(subscription: u32) -> Vec<u8> {
    let credit = proto::Credit {
        subscription,
        messages: 4,
        bytes: 4096,
    };
    frame(FrameType::CREDIT, &credit)
}

fn settle(subscription: u32) -> Vec<u8> {
    let settle = SettleFrame {
        ticket: 1,
        subscription,
        runs: Vec::new(),
    };
    settle.encode().expect("a seed is small").to_vec()
}
