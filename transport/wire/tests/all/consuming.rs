//! Subscriptions: credit, consume streams, settlement.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tidegate_model::{Code, LeaseId, Offset, QueueId, Seq, ShardId, code};
use tidegate_wire::limits::{
    CONSUME_STREAMS_MAX, CREDIT_BYTES_MAX, CREDIT_MESSAGES_MAX, SETTLES_IN_FLIGHT_MAX,
    SUBSCRIPTIONS_MAX,
};
use tidegate_wire::{
    CONTROL, ClientEvent, Delivery, DeliveryHeader, FrameType, Origin, Outcome, Receipt, Refusal,
    ServerEvent, SettleRun, StreamId, encode_message, proto,
};

use crate::pair::{End, Net, Pair};

fn delivery(queue: u32, offset: u64, count: u16, bytes: usize) -> Delivery {
    Delivery {
        origin: Origin {
            queue_index: queue,
            queue: QueueId(u64::from(queue) + 100),
            shard: ShardId(queue % 8),
        },
        header: DeliveryHeader {
            base_offset: Offset(offset),
            lease: LeaseId(offset + 1),
            seq: Seq(offset + 7),
            count,
            span: count,
            attempt: 1,
            mac: [9; 16],
            ..DeliveryHeader::default()
        },
        section: Bytes::from(vec![5; bytes]),
    }
}

fn subscribe(pair: &mut Pair) -> u32 {
    let subscription = pair.client.subscribe(proto::Subscribe::default()).unwrap();
    pair.run(&mut |server, event| {
        if let ServerEvent::Subscribe(subscribe) = event {
            server.subscribed(subscribe.subscription);
        }
    });
    assert_eq!(
        pair.told.pop_front(),
        Some(ClientEvent::Subscribed { subscription })
    );
    subscription
}

fn run(pair: &mut Pair) -> Vec<ServerEvent> {
    let mut events = Vec::new();
    pair.run(&mut |_, event| events.push(event));
    events
}

fn deliveries(pair: &mut Pair) -> Vec<Delivery> {
    pair.told
        .drain(..)
        .filter_map(|event| match event {
            ClientEvent::Delivery { delivery, .. } => Some(delivery),
            _ => None,
        })
        .collect()
}

#[test]
fn credit_of_nothing_is_passed_over() {
    let mut pair = Pair::connected(Net::default());
    let subscription = subscribe(&mut pair);
    let nothing = proto::Credit {
        subscription,
        messages: 0,
        bytes: 0,
    };
    let frame = encode_message(FrameType::CREDIT, 0, &nothing).unwrap();
    for _ in 0..1000 {
        pair.inject(End::Server, CONTROL, frame.clone());
    }
    assert_eq!(run(&mut pair), []);
    assert!(pair.closed_by(End::Server).is_none());
}

#[test]
fn deliveries_arrive_as_they_were_sent() {
    let mut pair = Pair::connected(Net::default());
    let subscription = subscribe(&mut pair);
    pair.client.grant(subscription, 100, 1 << 20);
    assert_eq!(
        run(&mut pair),
        [ServerEvent::Credit {
            subscription,
            messages: 100,
            bytes: 1 << 20
        }]
    );
    let sent = [delivery(2, 40, 3, 500), delivery(3, 7, 1, 60_000)];
    pair.server.deliver(subscription, sent.clone());
    run(&mut pair);
    let got = deliveries(&mut pair);
    assert_eq!(got.len(), 2);
    for sent in sent {
        let got = got
            .iter()
            .find(|d| d.origin == sent.origin)
            .expect("it arrived");
        let alias = got.header.alias;
        assert_eq!(
            got.header,
            DeliveryHeader {
                alias,
                ..sent.header
            }
        );
        assert_eq!(got.section, sent.section);
        assert_eq!(
            got.receipt(),
            Some(Receipt {
                queue: sent.origin.queue,
                base_offset: sent.header.base_offset,
                span: sent.header.span,
                attempt: 1,
                lease: sent.header.lease,
                mac: [9; 16],
            })
        );
        assert_eq!(got.message_id(1).batch.seq, sent.header.seq);
    }
    assert_eq!(
        pair.client.credit_left(subscription),
        pair.server.credit_left(subscription)
    );
}

#[test]
fn what_credit_does_not_cover_waits_for_more() {
    let mut pair = Pair::connected(Net::default());
    let subscription = subscribe(&mut pair);
    pair.client.grant(subscription, 4, 1000);
    run(&mut pair);
    pair.server
        .deliver(subscription, (0..10).map(|i| delivery(0, i, 1, 300)));
    run(&mut pair);
    // A thousand bytes pay for three whole batches and the one that goes beyond.
    assert_eq!(deliveries(&mut pair).len(), 4);
    pair.client.grant(subscription, 1, 200);
    run(&mut pair);
    assert_eq!(deliveries(&mut pair).len(), 0);
    pair.client.grant(subscription, 2, 10_000);
    run(&mut pair);
    assert_eq!(deliveries(&mut pair).len(), 3);
    pair.client.grant(subscription, 100, 0);
    run(&mut pair);
    assert_eq!(deliveries(&mut pair).len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn credit_is_never_exceeded(
        grants in prop::collection::vec((0u32..20, 0u32..4000), 1..12),
        sizes in prop::collection::vec((1u16..8, 0usize..3000, 0u32..5), 1..40),
        seed in 1u64..u64::MAX,
    ) {
        let net = Net { jitter: Duration::from_millis(30), piece: 100, seed, ..Net::default() };
        let mut pair = Pair::connected(net);
        let subscription = subscribe(&mut pair);
        let mut sizes = sizes.into_iter();
        let (mut messages, mut bytes, mut got, mut got_bytes) = (0u64, 0u64, 0u64, 0u64);
        let mut largest = 0;
        for (m, b) in grants {
            let granted = pair.client.grant(subscription, m, b);
            messages += u64::from(granted.0);
            bytes += u64::from(granted.1);
            for (count, len, queue) in sizes.by_ref().take(4) {
                largest = largest.max(len as u64);
                pair.server.deliver(subscription, [delivery(queue, got, count, len)]);
            }
            run(&mut pair);
            for delivery in deliveries(&mut pair) {
                got += u64::from(delivery.header.count);
                got_bytes += delivery.section.len() as u64;
            }
            prop_assert!(got <= messages);
            prop_assert!(got_bytes <= bytes + largest);
            prop_assert!(pair.closed_by(End::Client).is_none());
            prop_assert!(pair.closed_by(End::Server).is_none());
            prop_assert_eq!(pair.client.credit_left(subscription), pair.server.credit_left(subscription));
        }
    }
}

#[test]
fn a_server_that_sends_beyond_credit_is_left() {
    let mut pair = Pair::connected(Net::default());
    let subscription = subscribe(&mut pair);
    pair.client.grant(subscription, 1, 100);
    run(&mut pair);
    let stream = StreamId::new(true, true, 0);
    let alias = proto::Alias {
        alias: 3,
        subscription,
        ..proto::Alias::default()
    };
    let mut bytes = encode_message(FrameType::ALIAS, 0, &alias)
        .unwrap()
        .to_vec();
    for _ in 0..2 {
        let header = DeliveryHeader {
            alias: 3,
            count: 1,
            ..DeliveryHeader::default()
        };
        bytes.extend_from_slice(&header.encode(10).unwrap());
        bytes.extend_from_slice(&[0; 10]);
    }
    pair.inject(End::Client, stream, bytes);
    run(&mut pair);
    let (code, reason) = pair.closed_by(End::Client).unwrap();
    assert_eq!(*code, code::PROTOCOL);
    assert!(reason.contains("beyond credit"), "{reason}");
    assert_eq!(deliveries(&mut pair).len(), 1);
}

#[test]
fn a_client_that_grants_too_much_is_left_and_ours_does_not() {
    let mut pair = Pair::connected(Net::default());
    let subscription = subscribe(&mut pair);
    // All but a quarter, of which one subscription in 256 has its share.
    let all_it_gets = |limit: u32| limit - limit / 4 + limit / 4 / 256;
    assert_eq!(
        pair.client.grant(subscription, u32::MAX, u32::MAX),
        (
            all_it_gets(CREDIT_MESSAGES_MAX),
            all_it_gets(CREDIT_BYTES_MAX)
        )
    );
    assert_eq!(pair.client.grant(subscription, 1, 1), (0, 0));
    run(&mut pair);
    assert!(pair.closed_by(End::Server).is_none());
    let rest = proto::Credit {
        subscription,
        messages: CREDIT_MESSAGES_MAX - all_it_gets(CREDIT_MESSAGES_MAX),
        bytes: 0,
    };
    let frame = encode_message(FrameType::CREDIT, 0, &rest).unwrap();
    pair.inject(End::Server, CONTROL, frame);
    run(&mut pair);
    assert!(pair.closed_by(End::Server).is_none());
    let credit = proto::Credit {
        subscription,
        messages: 1,
        bytes: 0,
    };
    let frame = encode_message(FrameType::CREDIT, 0, &credit).unwrap();
    pair.inject(End::Server, CONTROL, frame);
    run(&mut pair);
    assert_eq!(pair.closed_by(End::Server).unwrap().0, code::PROTOCOL);
}

#[test]
fn every_subscription_of_a_full_connection_gets_messages() {
    let mut pair = Pair::connected(Net::default());
    let (messages, bytes) = (4096, 4 * 1024 * 1024);
    let all: Vec<u32> = (0..SUBSCRIPTIONS_MAX)
        .map(|_| {
            let subscription = subscribe(&mut pair);
            let (messages, bytes) = pair.client.grant(subscription, messages, bytes);
            assert!(messages > 0 && bytes > 0, "subscription {subscription}");
            subscription
        })
        .collect();
    run(&mut pair);
    for (queue, &subscription) in (0..).zip(&all) {
        pair.server
            .deliver(subscription, [delivery(queue, 0, 10, 1000)]);
    }
    run(&mut pair);
    assert_eq!(deliveries(&mut pair).len(), all.len());
    // What one gives back is there for another.
    let (first, last) = (all[0], all[all.len() - 1]);
    let before = pair.client.grant(last, messages, bytes);
    pair.client.unsubscribe(first);
    let after = pair.client.grant(last, messages, bytes);
    assert!(after.1 > before.1, "{before:?} and {after:?}");
    run(&mut pair);
    assert!(pair.closed_by(End::Server).is_none());
}

#[test]
fn many_queues_share_64_streams() {
    let mut pair = Pair::connected(Net::default());
    let subscription = subscribe(&mut pair);
    pair.client.grant(subscription, 10_000, 10_000_000);
    run(&mut pair);
    for round in 0..2 {
        pair.server.deliver(
            subscription,
            (0..200).map(|queue| delivery(queue, round, 1, 50)),
        );
    }
    run(&mut pair);
    let got = deliveries(&mut pair);
    assert_eq!(got.len(), 400);
    let mut offsets: HashMap<u32, Vec<u64>> = HashMap::new();
    for delivery in got {
        offsets
            .entry(delivery.origin.queue_index)
            .or_default()
            .push(delivery.header.base_offset.0);
    }
    assert_eq!(offsets.len(), 200);
    assert!(offsets.values().all(|o| *o == [0, 1]));
    // The client never saw more streams than that.
    let streams: BTreeSet<u64> = (0..200)
        .filter(|i| pair.client.wants_data(StreamId::new(true, true, *i)))
        .collect();
    assert_eq!(streams.len(), CONSUME_STREAMS_MAX);
    pair.client.unsubscribe(subscription);
    assert_eq!(run(&mut pair), [ServerEvent::Unsubscribe { subscription }]);
    let streams = (0..200)
        .filter(|i| pair.client.wants_data(StreamId::new(true, true, *i)))
        .count();
    assert_eq!(streams, 0);
}

#[test]
fn numbers_of_queues_are_used_again() {
    let mut pair = Pair::connected(Net::default());
    let keeper = subscribe(&mut pair);
    pair.client.grant(keeper, 1000, 1_000_000);
    run(&mut pair);
    pair.server
        .deliver(keeper, (0..64).map(|queue| delivery(queue, 0, 1, 10)));
    run(&mut pair);
    assert_eq!(deliveries(&mut pair).len(), 64);
    let mut highest = 0;
    for _ in 0..20 {
        let guest = subscribe(&mut pair);
        pair.client.grant(guest, 1000, 1_000_000);
        run(&mut pair);
        pair.server
            .deliver(guest, (0..128).map(|queue| delivery(queue, 0, 1, 10)));
        run(&mut pair);
        let got = deliveries(&mut pair);
        assert_eq!(got.len(), 128);
        highest = got
            .iter()
            .map(|d| d.header.alias)
            .max()
            .unwrap()
            .max(highest);
        pair.client.unsubscribe(guest);
        run(&mut pair);
        pair.told.clear();
    }
    assert!(highest <= 3, "{highest}");
    pair.server.deliver(keeper, [delivery(9, 1, 1, 10)]);
    run(&mut pair);
    assert_eq!(deliveries(&mut pair)[0].origin.queue_index, 9);
}

#[test]
fn what_is_on_its_way_after_unsubscribing_is_dropped() {
    let mut pair = Pair::connected(Net::default());
    let subscription = subscribe(&mut pair);
    pair.client.grant(subscription, 10, 10_000);
    run(&mut pair);
    pair.server.deliver(subscription, [delivery(0, 0, 1, 50)]);
    pair.client.unsubscribe(subscription);
    run(&mut pair);
    assert_eq!(
        pair.told.drain(..).collect::<Vec<_>>(),
        [ClientEvent::Ended {
            subscription,
            refusal: None
        }]
    );
    // Nothing goes to a subscription that is over.
    pair.server.deliver(subscription, [delivery(0, 1, 1, 50)]);
    assert_eq!(run(&mut pair), []);
    assert!(pair.told.is_empty());
    assert_ne!(subscribe(&mut pair), subscription);
}

#[test]
fn a_refused_subscription_says_why_and_gives_its_place_back() {
    let mut pair = Pair::connected(Net::default());
    let why = Refusal::new(code::GROUP_NOT_FOUND, "no group g").hint("make one");
    let subscription = pair.client.subscribe(proto::Subscribe::default()).unwrap();
    pair.client.grant(subscription, 10, 1000);
    pair.run(&mut |server, event| {
        if let ServerEvent::Subscribe(subscribe) = event {
            server.end_subscription(subscribe.subscription, &why);
        }
    });
    assert_eq!(
        pair.told.pop_front(),
        Some(ClientEvent::Ended {
            subscription,
            refusal: Some(why)
        })
    );
    assert_eq!(pair.client.credit_left(subscription), (0, 0));
}

#[test]
fn credit_that_comes_before_the_answer_is_not_lost() {
    let mut pair = Pair::connected(Net::default());
    let subscription = pair.client.subscribe(proto::Subscribe::default()).unwrap();
    pair.client.grant(subscription, 10, 1000);
    pair.client.grant(subscription, 5, 500);
    let asked = run(&mut pair);
    assert_eq!(asked.len(), 1);
    pair.server.subscribed(subscription);
    assert_eq!(
        run(&mut pair),
        [ServerEvent::Credit {
            subscription,
            messages: 15,
            bytes: 1500
        }]
    );
}

fn run_of(lease: u64, outcome: Outcome) -> SettleRun {
    SettleRun {
        receipt: Receipt {
            lease: LeaseId(lease),
            ..Receipt::default()
        },
        records: vec![(0, 3), (5, 6)],
        outcome,
    }
}

#[test]
fn settlements_are_answered_by_ticket() {
    let mut pair = Pair::connected(Net::default());
    let subscription = subscribe(&mut pair);
    let runs = vec![
        run_of(1, Outcome::Ack),
        run_of(2, Outcome::Nack { delay_ms: None }),
        run_of(3, Outcome::Nack { delay_ms: Some(9) }),
        run_of(4, Outcome::Extend { invisible_ms: 70 }),
    ];
    let first = pair.client.settle(subscription, runs.clone()).unwrap();
    let second = pair.client.settle(subscription, Vec::new()).unwrap();
    let why = Refusal::new(code::OVERLOADED, "busy");
    let results: [Option<Code>; 4] = [None, None, Some(code::LEASE_EXPIRED), None];
    pair.run(&mut |server, event| match event {
        ServerEvent::Settle(settle) if settle.ticket == first => {
            assert_eq!(settle.runs, runs);
            server.settled(first, Ok(&results));
        }
        ServerEvent::Settle(settle) => server.settled(settle.ticket, Err(&why)),
        other => panic!("{other:?}"),
    });
    assert_eq!(
        pair.told.drain(..).collect::<Vec<_>>(),
        [
            ClientEvent::Settled {
                ticket: first,
                outcome: Ok(vec![Ok(()), Ok(()), Err(code::LEASE_EXPIRED), Ok(())])
            },
            ClientEvent::Settled {
                ticket: second,
                outcome: Err(why)
            }
        ]
    );
}

#[test]
fn settlements_in_flight_are_bounded() {
    let mut pair = Pair::connected(Net::default());
    let subscription = subscribe(&mut pair);
    for _ in 0..SETTLES_IN_FLIGHT_MAX {
        pair.client
            .settle(subscription, vec![run_of(1, Outcome::Ack)])
            .unwrap();
    }
    let refused = pair.client.settle(subscription, Vec::new());
    assert_eq!(refused.unwrap_err().code, code::OVERLOADED);
    assert_eq!(run(&mut pair).len(), SETTLES_IN_FLIGHT_MAX);
    assert!(!pair.server.wants_data(CONTROL));
    pair.server.settled(1, Ok(&[None]));
    assert!(pair.server.wants_data(CONTROL));
    run(&mut pair);
    assert!(pair.client.settle(subscription, Vec::new()).is_ok());
}
