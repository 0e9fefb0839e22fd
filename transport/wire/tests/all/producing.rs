//! Publishing over both sessions, and over connections that are cut.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tidegate_model::{Codec, Message, Offset, Section, Seq, Sequence, ShardId, code};
use tidegate_wire::limits::{
    CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, PUBLISH_BYTES_IN_FLIGHT_MAX, PUBLISHES_IN_FLIGHT_MAX,
};
use tidegate_wire::{
    ClientEvent, Output, Producer, ProducerConfig, ProducerEvent, PublishHeader, PublishOutcome,
    Refusal, ServerEvent, ServerSession, StreamId, proto,
};

use crate::pair::{End, Net, Pair};

const QUEUES: usize = 3;

fn opened() -> proto::ProducerOpened {
    proto::ProducerOpened {
        producer: 7,
        epoch: 0,
        layout_version: 1,
        queues: vec![proto::Queue::default(); QUEUES],
    }
}

fn open(pair: &mut Pair) -> StreamId {
    let stream = pair
        .client
        .open_producer(&proto::OpenProducer::default())
        .unwrap();
    pair.run(&mut |server, event| {
        if let ServerEvent::OpenProducer { stream, .. } = event {
            server.producer_opened(stream, &opened());
        }
    });
    assert!(matches!(
        pair.told.pop_front(),
        Some(ClientEvent::ProducerOpened { .. })
    ));
    stream
}

fn header(ticket: u64) -> PublishHeader {
    PublishHeader {
        ticket,
        sequence: Sequence(ticket),
        count: 1,
        span: 1,
        ..PublishHeader::default()
    }
}

fn outcome(header: &PublishHeader) -> PublishOutcome {
    PublishOutcome {
        ticket: header.ticket,
        seq: Seq(header.ticket + 100),
        base_offset: Offset(header.sequence.0),
        shard: ShardId(1),
        level: 2,
        duplicate: false,
    }
}

#[test]
fn publishes_are_pipelined() {
    let mut pair = Pair::connected(Net::default());
    let stream = open(&mut pair);
    let start = pair.now;
    for ticket in 0..200 {
        pair.client
            .publish(stream, &header(ticket), Bytes::from(vec![7; 100]))
            .unwrap();
    }
    pair.run(&mut |server, event| {
        if let ServerEvent::Publish {
            stream,
            header,
            section,
        } = event
        {
            assert_eq!(&section[..], &[7; 100]);
            server.published(stream, &[outcome(&header)]);
        }
    });
    let told: Vec<PublishOutcome> = pair
        .told
        .drain(..)
        .flat_map(|event| match event {
            ClientEvent::Published { outcomes, .. } => outcomes,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        (0..200).map(|t| outcome(&header(t))).collect::<Vec<_>>()
    );
    assert_eq!(pair.now - start, Duration::from_millis(20));
    assert!(pair.server.is_idle());
}

#[test]
fn small_batches_share_chunks_and_large_ones_are_cut() {
    let mut pair = Pair::connected(Net::default());
    let stream = open(&mut pair);
    pair.chunks.clear();
    for ticket in 0..1000 {
        pair.client
            .publish(stream, &header(ticket), Bytes::from(vec![7; 100]))
            .unwrap();
    }
    pair.client
        .publish(stream, &header(1000), Bytes::from(vec![7; 1 << 20]))
        .unwrap();
    let mut seen = 0;
    pair.run(&mut |_, event| {
        if let ServerEvent::Publish { .. } = event {
            seen += 1;
        }
    });
    assert_eq!(seen, 1001);
    assert!(pair.chunks.iter().all(|len| *len <= CHUNK_BYTES_MAX));
    let small = pair.chunks.iter().filter(|l| **l < CHUNK_BYTES_MIN).count();
    assert!(small <= 2, "{:?}", pair.chunks);
}

#[test]
fn a_server_that_does_not_answer_reads_no_more_than_it_may_hold() {
    let mut pair = Pair::connected(Net::default());
    let stream = open(&mut pair);
    let mut held: VecDeque<PublishHeader> = VecDeque::new();
    let mut ticket = 0;
    // Two megabytes each: bytes are the limit, not their number.
    let section = Bytes::from(vec![1; 2 << 20]);
    for _ in 0..40 {
        if pair.client.can_publish(stream) {
            pair.client
                .publish(stream, &header(ticket), section.clone())
                .unwrap();
            ticket += 1;
        }
        pair.run(&mut |_, event| {
            if let ServerEvent::Publish { header, .. } = event {
                held.push_back(header);
            }
        });
    }
    let most = PUBLISH_BYTES_IN_FLIGHT_MAX / section.len();
    assert_eq!(held.len(), most);
    assert!(!pair.client.can_publish(stream));
    assert!(!pair.server.wants_data(stream));
    // Answers let it read on.
    while let Some(header) = held.pop_front() {
        pair.server.published(stream, &[outcome(&header)]);
        pair.run(&mut |_, event| {
            if let ServerEvent::Publish { header, .. } = event {
                held.push_back(header);
            }
        });
    }
    let answered: usize = pair
        .told
        .drain(..)
        .map(|event| match event {
            ClientEvent::Published { outcomes, .. } => outcomes.len(),
            // It asked whether the server that was so slow lives.
            ClientEvent::Pong { .. } => 0,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(answered as u64, ticket);
}

#[test]
fn tickets_in_flight_are_bounded_on_both_sides() {
    let mut pair = Pair::connected(Net::default());
    let stream = open(&mut pair);
    for ticket in 0..PUBLISHES_IN_FLIGHT_MAX as u64 {
        pair.client
            .publish(stream, &header(ticket), Bytes::new())
            .unwrap();
    }
    let next = header(PUBLISHES_IN_FLIGHT_MAX as u64);
    let refused = pair.client.publish(stream, &next, Bytes::new());
    assert_eq!(refused.unwrap_err().code, code::OVERLOADED);
    let mut seen = 0;
    let mut count = |event| seen += usize::from(matches!(event, ServerEvent::Publish { .. }));
    pair.run(&mut |_, event| count(event));
    // A client that doesn't care is not read.
    pair.inject(End::Server, stream, next.encode(0).unwrap().to_vec());
    pair.run(&mut |_, event| count(event));
    assert_eq!(seen, PUBLISHES_IN_FLIGHT_MAX);
    assert!(!pair.server.wants_data(stream));
}

#[test]
fn a_refused_producer_and_a_refused_batch_say_why() {
    let mut pair = Pair::connected(Net::default());
    let missing = Refusal::new(code::TOPIC_NOT_FOUND, "no topic nix").hint("make it");
    let stream = pair
        .client
        .open_producer(&proto::OpenProducer::default())
        .unwrap();
    let mut events = Vec::new();
    pair.run(&mut |server, event| {
        if let ServerEvent::OpenProducer { stream, .. } = event {
            server.refuse_producer(stream, &missing);
        } else {
            events.push(event);
        }
    });
    assert_eq!(
        pair.told.drain(..).collect::<Vec<_>>(),
        [ClientEvent::ProducerClosed {
            stream,
            refusal: missing
        }]
    );
    assert_eq!(events, []);
    assert!(pair.server.is_idle());

    let stream = open(&mut pair);
    pair.client
        .publish(stream, &header(4), Bytes::from_static(b"bad"))
        .unwrap();
    let invalid = Refusal::new(code::BATCH_INVALID, "no table");
    pair.run(&mut |server, event| {
        if let ServerEvent::Publish { stream, header, .. } = event {
            server.publish_refused(stream, header.ticket, &invalid);
        }
    });
    assert_eq!(
        pair.told.drain(..).collect::<Vec<_>>(),
        [ClientEvent::PublishRefused {
            stream,
            ticket: 4,
            refusal: invalid
        }]
    );
    pair.client.finish_producer(stream);
    let is_done = true;
    pair.run(&mut |_, event| assert_eq!(event, ServerEvent::ProducerClosed { stream, is_done }));
    assert!(matches!(
        pair.told.pop_front(),
        Some(ClientEvent::ProducerClosed { refusal, .. }) if refusal.code == code::CANCELLED
    ));
}

#[test]
fn a_producer_that_ends_before_its_answers_may_be_resumed() {
    let mut pair = Pair::connected(Net::default());
    let stream = open(&mut pair);
    pair.client
        .publish(stream, &header(0), Bytes::from_static(b"one"))
        .unwrap();
    pair.client.finish_producer(stream);
    pair.run(&mut |_, event| assert!(matches!(event, ServerEvent::Publish { .. })));
    pair.server.published(stream, &[outcome(&header(0))]);
    let mut closed = Vec::new();
    pair.run(&mut |_, event| closed.push(event));
    let is_done = false;
    assert_eq!(closed, [ServerEvent::ProducerClosed { stream, is_done }]);
}

#[test]
fn a_client_that_gives_its_connection_up_ends_no_producer() {
    let mut pair = Pair::connected(Net::default());
    let stream = open(&mut pair);
    let why = Refusal::new(code::TIMEOUT, "the server says nothing");
    pair.client.handle_lost(Duration::ZERO, &why);
    let outputs: Vec<_> = std::iter::from_fn(|| pair.client.poll_output()).collect();
    let reset = Output::Reset {
        stream,
        code: code::CANCELLED,
    };
    assert!(outputs.contains(&reset), "{outputs:?}");
    assert!(matches!(outputs.last(), Some(Output::Close { .. })));
}

#[test]
fn a_client_that_disappears_mid_batch_leaves_nothing_behind() {
    let mut pair = Pair::connected(Net::default());
    let stream = open(&mut pair);
    for ticket in 0..3 {
        pair.client
            .publish(stream, &header(ticket), Bytes::from(vec![1; 100]))
            .unwrap();
    }
    let half = header(3).encode(1000).unwrap();
    let mut events = Vec::new();
    pair.run(&mut |_, event| events.push(event));
    pair.inject(End::Server, stream, half.to_vec());
    pair.run(&mut |_, event| events.push(event));
    assert_eq!(events.len(), 3);
    pair.cut();
    let left: Vec<_> = std::iter::from_fn(|| pair.server.poll_event()).collect();
    let is_done = false;
    assert_eq!(left, [ServerEvent::ProducerClosed { stream, is_done }]);
    // Late answers go nowhere.
    pair.server.published(stream, &[outcome(&header(0))]);
    assert!(pair.server.is_idle());
    assert_eq!(pair.server.transmit(stream), None);
    assert!(matches!(
        pair.told.pop_front(),
        Some(ClientEvent::ProducerClosed { .. })
    ));
}

/// A broker of one topic that takes the next sequence of each queue and remembers the others.
#[derive(Default)]
struct Broker {
    queues: HashMap<u32, (u64, Vec<String>)>,
    random: u64,
}

impl Broker {
    fn on(&mut self, server: &mut ServerSession, event: ServerEvent) {
        match event {
            ServerEvent::Hello(_) => server.welcome(crate::pair::welcome()),
            ServerEvent::OpenProducer { stream, .. } => server.producer_opened(stream, &opened()),
            ServerEvent::Publish {
                stream,
                header,
                section,
            } => self.publish(server, stream, &header, &section),
            _ => {}
        }
    }

    fn publish(
        &mut self,
        server: &mut ServerSession,
        stream: StreamId,
        header: &PublishHeader,
        section: &Bytes,
    ) {
        assert_eq!(
            tidegate_model::checksum::crc32c(section),
            header.section_crc
        );
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let (next, stored) = self.queues.entry(header.queue_index).or_default();
        if self.random >> 61 == 0 {
            let busy = Refusal::new(code::OVERLOADED, "busy");
            server.publish_refused(stream, header.ticket, &busy);
        } else if header.sequence.0 > *next {
            let gap = Refusal::new(code::SEQUENCE_GAP, "gap");
            server.publish_refused(stream, header.ticket, &gap);
        } else {
            let duplicate = header.sequence.0 < *next;
            if !duplicate {
                let codec = Codec::from_byte(header.codec).unwrap();
                let count = usize::from(header.count);
                let parsed = Section::parse(section, count, header.span.into(), codec).unwrap();
                stored.extend(parsed.records().map(|r| r.tag().unwrap().to_owned()));
                *next += u64::from(header.count);
            }
            server.published(
                stream,
                &[PublishOutcome {
                    duplicate,
                    ..outcome(header)
                }],
            );
        }
    }
}

/// Messages go through a producer over connections that are cut again and again.
fn publish_over_bad_connections(seed: u64, messages: usize, cut_every: Option<Duration>) {
    let mut broker = Broker {
        random: seed,
        ..Broker::default()
    };
    let mut producer = Producer::new(ProducerConfig {
        batch_bytes: 600,
        ..ProducerConfig::default()
    });
    let mut sent: HashMap<u32, Vec<String>> = HashMap::new();
    let mut done = 0;
    let mut next = 0;
    let mut now = Duration::from_secs(1);
    for connection in 0..200u64 {
        let net = Net {
            latency: Duration::from_millis(3),
            jitter: Duration::from_millis(4),
            piece: 700,
            seed: seed + connection,
        };
        let mut pair = Pair::at(now, net);
        let end = cut_every.map(|every| pair.now + every);
        let mut stream = None;
        loop {
            pair.sleep(Duration::from_millis(1), &mut |server, event| {
                broker.on(server, event);
            });
            now = pair.now;
            while let Some(event) = pair.told.pop_front() {
                match event {
                    ClientEvent::Welcome(_) => {
                        let resume = producer.resume();
                        let open = proto::OpenProducer {
                            topic: None,
                            resume,
                            non_idempotent: false,
                        };
                        stream = Some(pair.client.open_producer(&open).unwrap());
                    }
                    ClientEvent::ProducerOpened { opened, .. } => producer.opened(&opened).unwrap(),
                    ClientEvent::Published { outcomes, .. } => {
                        outcomes.iter().for_each(|o| producer.published(o));
                    }
                    ClientEvent::PublishRefused {
                        ticket, refusal, ..
                    } => producer.refused(now, ticket, &refusal),
                    other => panic!("{other:?}"),
                }
            }
            for _ in 0..5 {
                if next == messages || producer.resume().is_none() {
                    break;
                }
                let tag = format!("m{next}");
                let mut message = Message::new("body").tag(tag.clone());
                if !next.is_multiple_of(3) {
                    message = message.key(format!("k{}", next % 7));
                }
                let placed = producer.push(|| now, &message).unwrap();
                sent.entry(placed.queue_index).or_default().push(tag);
                next += 1;
            }
            while let Some(event) = producer.poll_event() {
                match event {
                    ProducerEvent::Stored { count, .. } => done += usize::from(count),
                    other => panic!("{other:?}"),
                }
            }
            if let Some(stream) = stream {
                while pair.client.can_publish(stream)
                    && let Some((header, section)) = producer.poll_batch(now)
                {
                    pair.client.publish(stream, &header, section).unwrap();
                }
            }
            if done == messages {
                assert!(producer.is_empty());
                let stored: HashMap<u32, Vec<String>> = broker
                    .queues
                    .into_iter()
                    .map(|(queue, (_, tags))| (queue, tags))
                    .collect();
                assert_eq!(stored, sent);
                return;
            }
            if end.is_some_and(|end| pair.now >= end) {
                break;
            }
            assert!(now < Duration::from_secs(120), "{done} of {messages}");
        }
        producer.disconnected();
    }
    panic!("{done} of {messages} after 200 connections");
}

#[test]
fn a_producer_stores_each_message_once_in_order() {
    publish_over_bad_connections(1, 500, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn also_over_connections_that_are_cut(seed in 1u64..1 << 40, every in 40u64..120) {
        publish_over_bad_connections(seed, 120, Some(Duration::from_millis(every)));
    }
}
