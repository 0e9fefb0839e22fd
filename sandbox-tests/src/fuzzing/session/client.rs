//! A client session before a server that may send anything.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tidegate_model::{Offset, Sequence, code};
use tidegate_wire::publish::encode_outcomes;
use tidegate_wire::{
    ClientEvent, ClientSession, DeliveryHeader, FrameType, Outcome, PublishHeader, PublishOutcome,
    Receipt, Refusal, SettleRun, StreamId, encode_message, proto,
};

use super::{
    APPLICATION, Driver, FINISH, OPEN_ONE_WAY, RESET, STEPS_MAX, STOP, Script, WAIT, push_data,
};

const SUBSCRIBE: u8 = APPLICATION;
const GRANT: u8 = APPLICATION + 1;
const UNSUBSCRIBE: u8 = APPLICATION + 2;
const SETTLE: u8 = APPLICATION + 3;
const OPEN_PRODUCER: u8 = APPLICATION + 4;
const PUBLISH: u8 = APPLICATION + 5;
const FINISH_PRODUCER: u8 = APPLICATION + 6;
const ASK: u8 = APPLICATION + 7;
const CANCEL: u8 = APPLICATION + 8;
const PING: u8 = APPLICATION + 9;
const STEPS: u8 = APPLICATION + 10;

/// Runs a script; at its end the connection is lost, and everything that was asked has an outcome.
///
/// # Panics
/// If the session breaks a promise to its driver or its application.
pub fn run(input: &[u8]) {
    let hello = proto::Hello::default();
    let session = ClientSession::new(Duration::ZERO, hello).expect("an empty hello fits");
    let mut play = Play {
        driver: Driver::new(session),
        requests: BTreeSet::new(),
        producers: BTreeSet::new(),
        subscriptions: BTreeSet::new(),
        ticket: 0,
    };
    let mut script = Script { rest: input };
    play.settle();
    for _ in 0..STEPS_MAX {
        let Some(step) = script.byte() else { break };
        let step = step % STEPS;
        if !play.driver.step(step, &mut script) {
            play.step(step, &mut script);
        }
        play.settle();
        if play.driver.session.is_closed() {
            break;
        }
    }
    let now = play.driver.now;
    let why = Refusal::new(code::UNREACHABLE, "the script is over");
    play.driver.session.handle_lost(now, &why);
    play.settle();
    assert!(play.requests.is_empty(), "requests without an outcome");
    assert!(play.producers.is_empty(), "producers without an end");
    assert!(
        play.subscriptions.is_empty(),
        "subscriptions without an end"
    );
}

struct Play {
    driver: Driver<ClientSession>,
    /// What was asked and has no outcome.
    requests: BTreeSet<StreamId>,
    producers: BTreeSet<StreamId>,
    subscriptions: BTreeSet<u32>,
    ticket: u64,
}

impl Play {
    fn step(&mut self, step: u8, script: &mut Script<'_>) {
        let number = script.byte().unwrap_or(0);
        let subscription = u32::from(number);
        let session = &mut self.driver.session;
        match step {
            SUBSCRIBE => {
                if let Ok(new) = session.subscribe(proto::Subscribe::default()) {
                    assert!(self.subscriptions.insert(new), "a number was given twice");
                }
            }
            GRANT => {
                let asked = (u32::from(script.short()), u32::from(script.short()));
                let granted = session.grant(subscription, asked.0, asked.1);
                assert!(granted.0 <= asked.0 && granted.1 <= asked.1);
            }
            UNSUBSCRIBE => {
                session.unsubscribe(subscription);
                self.subscriptions.remove(&subscription);
            }
            SETTLE => {
                let run = SettleRun {
                    receipt: Receipt::default(),
                    records: vec![(0, u16::from(number))],
                    outcome: Outcome::Ack,
                };
                // A refusal is an answer too: nothing was sent then.
                let _ = session.settle(subscription, vec![run]);
            }
            OPEN_PRODUCER => {
                if let Ok(stream) = session.open_producer(&proto::OpenProducer::default()) {
                    self.producers.insert(stream);
                }
            }
            PUBLISH => {
                if let Some(stream) = nth(&self.producers, number) {
                    self.ticket += 1;
                    let header = PublishHeader {
                        ticket: self.ticket,
                        sequence: Sequence(self.ticket),
                        ..PublishHeader::default()
                    };
                    let could = session.can_publish(stream);
                    let sent = session.publish(stream, &header, Bytes::from_static(&[0; 8]));
                    assert_eq!(could, sent.is_ok(), "can_publish was wrong");
                }
            }
            FINISH_PRODUCER => {
                if let Some(stream) = nth(&self.producers, number) {
                    session.finish_producer(stream);
                }
            }
            ASK => {
                let kind = proto::RequestKind::DescribeServer(proto::Empty {});
                if let Ok(stream) = session.request(kind) {
                    self.requests.insert(stream);
                }
            }
            CANCEL => {
                if let Some(stream) = nth(&self.requests, number) {
                    session.cancel_request(stream);
                    self.requests.remove(&stream);
                }
            }
            _ => session.ping(u64::from(number)),
        }
    }

    fn settle(&mut self) {
        self.driver.drain();
        while let Some(event) = self.driver.session.poll_event() {
            match event {
                ClientEvent::Replied { stream, .. }
                | ClientEvent::RequestRefused { stream, .. } => {
                    assert!(
                        self.requests.remove(&stream),
                        "an outcome that nobody awaits"
                    );
                }
                ClientEvent::ProducerClosed { stream, .. } => {
                    assert!(self.producers.remove(&stream), "a producer ended twice");
                }
                ClientEvent::Ended { subscription, .. } => {
                    self.subscriptions.remove(&subscription);
                }
                ClientEvent::Delivery { subscription, .. } => {
                    assert!(self.subscriptions.contains(&subscription));
                }
                _ => {}
            }
        }
    }
}

fn nth(streams: &BTreeSet<StreamId>, number: u8) -> Option<StreamId> {
    let place = usize::from(number) % streams.len().max(1);
    streams.iter().nth(place).copied()
}

/// Conversations of a well-behaved server, and of some others.
///
/// # Panics
/// If a seed can't be built, which its test would show.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let opened = frame(
        FrameType::PRODUCER_OPENED,
        &proto::ProducerOpened::default(),
    );
    let mut produce = let_in();
    produce.extend_from_slice(&[OPEN_PRODUCER, 0]);
    push_data(&mut produce, 1, &opened);
    produce.extend_from_slice(&[PUBLISH, 0, PUBLISH, 0, PUBLISH, 0]);
    push_data(&mut produce, 1, &published(&[1, 3]));
    let mut unknown_ticket = produce.clone();
    push_data(&mut unknown_ticket, 1, &published(&[9]));
    produce.extend_from_slice(&[FINISH_PRODUCER, 0]);
    push_data(&mut produce, 1, &published(&[2]));
    produce.extend_from_slice(&[FINISH, 1]);

    let mut consume = let_in();
    consume.extend_from_slice(&[SUBSCRIBE, 0, GRANT, 1, 4, 0, 0, 16]);
    let subscribed = proto::Subscribed { subscription: 1 };
    push_data(&mut consume, 0, &frame(FrameType::SUBSCRIBED, &subscribed));
    consume.push(OPEN_ONE_WAY);
    push_data(&mut consume, 1, &frame(FrameType::ALIAS, &alias(1)));
    push_data(&mut consume, 1, &delivery());
    consume.extend_from_slice(&[SETTLE, 1]);
    let mut beyond_credit = consume.clone();
    for _ in 0..5 {
        push_data(&mut beyond_credit, 1, &delivery());
    }
    let settled = proto::Settled {
        ticket: 1,
        results: vec![0],
        refused: None,
    };
    push_data(&mut consume, 0, &frame(FrameType::SETTLED, &settled));
    consume.extend_from_slice(&[UNSUBSCRIBE, 1]);
    let ended = proto::Ended {
        subscription: 1,
        refused: None,
    };
    push_data(&mut consume, 0, &frame(FrameType::ENDED, &ended));

    let mut ask = let_in();
    ask.extend_from_slice(&[ASK, 0, ASK, 0, CANCEL, 1]);
    let received = proto::Reply {
        kind: Some(proto::ReplyKind::Received(proto::Received {
            frames: 1,
            aliases: vec![alias(0)],
        })),
    };
    push_data(&mut ask, 1, &frame(FrameType::REPLY, &received));
    push_data(&mut ask, 1, &delivery());
    ask.extend_from_slice(&[FINISH, 1]);
    let mut reset = let_in();
    reset.extend_from_slice(&[ASK, 0, OPEN_PRODUCER, 0, RESET, 1, 3, 0, STOP, 2, 3, 0]);

    let refused = proto::Refused {
        code: 16,
        message: "no".to_owned(),
        hint: String::new(),
    };
    let mut away = let_in();
    away.extend_from_slice(&[PING, 7]);
    let go_away = proto::GoAway {
        reason: Some(refused.clone()),
        drain_ms: 1000,
    };
    push_data(&mut away, 0, &frame(FrameType::GOAWAY, &go_away));
    away.extend_from_slice(&[ASK, 0, WAIT, 0xFF, 0xFF]);
    let mut turned_away = Vec::new();
    push_data(&mut turned_away, 0, &frame(FrameType::REFUSED, &refused));
    let mut slow = let_in();
    slow.extend_from_slice(&[ASK, 0]);
    push_data(&mut slow, 1, &frame(FrameType::REPLY, &received)[..6]);
    slow.extend_from_slice(&[WAIT, 0x10, 0x27, WAIT, 0x10, 0x27]);
    [
        ("let-in", let_in()),
        ("turned-away", turned_away),
        ("produce", produce),
        ("unknown-ticket", unknown_ticket),
        ("consume", consume),
        ("beyond-credit", beyond_credit),
        ("ask", ask),
        ("reset", reset),
        ("go-away", away),
        ("slow-reply", slow),
    ]
    .map(|(name, script)| (name.to_owned(), script))
    .to_vec()
}

fn let_in() -> Vec<u8> {
    let mut script = Vec::new();
    let welcome = proto::Welcome {
        version: 1,
        ..proto::Welcome::default()
    };
    push_data(&mut script, 0, &frame(FrameType::WELCOME, &welcome));
    script
}

fn frame(kind: FrameType, message: &impl Message) -> Vec<u8> {
    encode_message(kind, 0, message)
        .expect("a seed is small")
        .to_vec()
}

fn published(tickets: &[u64]) -> Vec<u8> {
    let outcomes: Vec<PublishOutcome> = tickets
        .iter()
        .map(|&ticket| PublishOutcome {
            ticket,
            ..PublishOutcome::default()
        })
        .collect();
    encode_outcomes(&outcomes).0.to_vec()
}

fn alias(subscription: u32) -> proto::Alias {
    proto::Alias {
        alias: 0,
        subscription,
        queue_index: 0,
        queue: 1,
        shard: 1,
    }
}

fn delivery() -> Vec<u8> {
    let header = DeliveryHeader {
        base_offset: Offset(3),
        count: 1,
        span: 1,
        ..DeliveryHeader::default()
    };
    let mut bytes = header.encode(16).expect("a seed is small").to_vec();
    bytes.extend_from_slice(&[0; 16]);
    bytes
}
