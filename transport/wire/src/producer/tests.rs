//! Placing, batching and retrying against a broker of a few lines.

use std::collections::HashMap;

use tidegate_model::{Offset, Seq, ShardId};

use super::*;

const MS: Duration = Duration::from_millis(1);

fn opened(producer: u64, queues: usize) -> proto::ProducerOpened {
    proto::ProducerOpened {
        producer,
        epoch: 0,
        layout_version: 1,
        queues: vec![proto::Queue::default(); queues],
    }
}

fn producer(queues: usize) -> Producer {
    let mut producer = Producer::new(ProducerConfig::default());
    producer.opened(&opened(7, queues)).unwrap();
    producer
}

fn stored(header: &PublishHeader) -> PublishOutcome {
    PublishOutcome {
        ticket: header.ticket,
        seq: Seq(1),
        base_offset: Offset(header.sequence.0),
        shard: ShardId(1),
        level: 2,
        duplicate: false,
    }
}

fn drain(producer: &mut Producer, now: Duration) -> Vec<PublishHeader> {
    std::iter::from_fn(|| producer.poll_batch(now).map(|(header, _)| header)).collect()
}

/// Takes only the next sequence of each queue, as the broker does.
#[derive(Default)]
struct Broker {
    next: HashMap<u32, u64>,
}

impl Broker {
    fn answer(&mut self, producer: &mut Producer, now: Duration, header: &PublishHeader) -> bool {
        let next = self.next.entry(header.queue_index).or_default();
        if header.sequence.0 < *next {
            producer.published(&PublishOutcome {
                duplicate: true,
                ..stored(header)
            });
            true
        } else if header.sequence.0 > *next {
            producer.refused(now, header.ticket, &Refusal::new(code::SEQUENCE_GAP, "gap"));
            false
        } else {
            *next += u64::from(header.count);
            producer.published(&stored(header));
            true
        }
    }
}

#[test]
fn a_lone_message_goes_at_once_and_the_next_ones_share_a_batch() {
    let mut producer = producer(4);
    producer.push(|| MS, &Message::new("a")).unwrap();
    let first = drain(&mut producer, MS);
    assert_eq!(first.len(), 1);
    for _ in 0..10 {
        producer.push(|| MS, &Message::new("b")).unwrap();
    }
    assert!(drain(&mut producer, MS).is_empty());
    assert_eq!(producer.poll_timeout(), Some(6 * MS));
    producer.published(&stored(&first[0]));
    let second = drain(&mut producer, MS);
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].count, 10);
    assert_ne!(second[0].queue_index, first[0].queue_index);
    producer.published(&stored(&second[0]));
    assert!(producer.is_empty());
    assert_eq!(producer.buffered_bytes(), 0);
}

#[test]
fn linger_ends_a_batch_while_another_is_in_flight() {
    let mut producer = producer(1);
    producer.push(|| MS, &Message::new("a")).unwrap();
    assert_eq!(drain(&mut producer, MS).len(), 1);
    producer.push(|| MS, &Message::new("b")).unwrap();
    assert!(drain(&mut producer, 5 * MS).is_empty());
    let late = drain(&mut producer, 6 * MS);
    assert_eq!(late[0].sequence, tidegate_model::Sequence(1));
}

#[test]
fn batches_close_at_their_size_and_keys_keep_their_queue() {
    let mut producer = producer(8);
    let mut batches: HashMap<u32, u64> = HashMap::new();
    for i in 0..2000u32 {
        let key = format!("UA{}", i % 50);
        let message = Message::new(vec![i as u8; 100]).key(key.clone());
        let placed = producer.push(|| MS, &message).unwrap();
        assert_eq!(placed.queue_index, queue_for_key(key.as_bytes(), 8));
    }
    producer.flush();
    for header in drain(&mut producer, MS) {
        let next = batches.entry(header.queue_index).or_default();
        assert_eq!(header.sequence.0, *next);
        *next += u64::from(header.count);
    }
    assert_eq!(batches.values().sum::<u64>(), 2000);
}

#[test]
fn a_lost_connection_repeats_queue_and_sequence_in_order() {
    let mut producer = producer(2);
    for _ in 0..6 {
        producer.push(|| MS, &Message::new("m").key("k")).unwrap();
        producer.flush();
    }
    let first = drain(&mut producer, MS);
    producer.published(&stored(&first[0]));
    producer.disconnected();
    assert!(drain(&mut producer, MS).is_empty());
    producer.push(|| MS, &Message::new("m").key("k")).unwrap();
    producer.opened(&opened(7, 2)).unwrap();
    producer.flush();
    let again = drain(&mut producer, MS);
    let sequences: Vec<u64> = again.iter().map(|h| h.sequence.0).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5, 6]);
    assert!(again.iter().all(|h| h.ticket > first[5].ticket));
    let mut broker = Broker::default();
    broker.next.insert(again[0].queue_index, 4);
    for header in &again {
        assert!(broker.answer(&mut producer, MS, header));
    }
    assert!(producer.is_empty());
}

#[test]
fn an_overloaded_broker_gets_the_batches_again_in_order() {
    let mut producer = producer(1);
    for _ in 0..4 {
        producer.push(|| MS, &Message::new("m")).unwrap();
        producer.flush();
    }
    let first = drain(&mut producer, MS);
    let mut broker = Broker::default();
    let busy = Refusal::new(code::OVERLOADED, "full");
    producer.refused(MS, first[0].ticket, &busy);
    for header in &first[1..] {
        assert!(!broker.answer(&mut producer, MS, header));
    }
    assert!(drain(&mut producer, MS).is_empty());
    let retry = producer.poll_timeout().unwrap();
    assert_eq!(retry, 21 * MS);
    let again = drain(&mut producer, retry);
    assert_eq!(again.len(), 4);
    for header in &again {
        assert!(broker.answer(&mut producer, retry, header));
    }
    assert!(producer.is_empty());
    let events: Vec<_> = std::iter::from_fn(|| producer.poll_event()).collect();
    assert_eq!(events.len(), 4);
    assert!(
        events
            .iter()
            .all(|event| matches!(event, ProducerEvent::Stored { .. }))
    );
}

#[test]
fn a_batch_that_is_refused_for_good_leaves_no_gap() {
    let mut producer = producer(1);
    for _ in 0..3 {
        producer.push(|| MS, &Message::new("m")).unwrap();
        producer.flush();
    }
    let first = drain(&mut producer, MS);
    let mut broker = Broker::default();
    let bad = Refusal::new(code::BATCH_INVALID, "no");
    producer.refused(MS, first[0].ticket, &bad);
    for header in &first[1..] {
        broker.answer(&mut producer, MS, header);
    }
    let again = drain(&mut producer, 2 * MS);
    let sequences: Vec<u64> = again.iter().map(|h| h.sequence.0).collect();
    assert_eq!(sequences, [0, 1]);
    for header in &again {
        assert!(broker.answer(&mut producer, MS, header));
    }
    let failed = std::iter::from_fn(|| producer.poll_event())
        .filter(|event| matches!(event, ProducerEvent::Failed { .. }))
        .count();
    assert_eq!(failed, 1);
    producer.push(|| MS, &Message::new("m")).unwrap();
    assert_eq!(drain(&mut producer, MS)[0].sequence.0, 2);
}

#[test]
fn retries_end_and_say_why() {
    let mut producer = producer(1);
    producer.push(|| MS, &Message::new("m")).unwrap();
    let busy = Refusal::new(code::DISK_FULL, "full");
    let mut now = MS;
    let refusal = loop {
        for header in drain(&mut producer, now) {
            producer.refused(now, header.ticket, &busy);
        }
        if let Some(ProducerEvent::Failed { refusal, .. }) = producer.poll_event() {
            break refusal;
        }
        now = producer.poll_timeout().unwrap();
        assert!(now < 40 * 1000 * MS);
    };
    assert_eq!(refusal.code, code::DISK_FULL);
    assert!(now >= 30 * 1000 * MS);
    assert!(producer.is_empty());
}

#[test]
fn what_may_be_stored_is_sent_again_only_by_an_idempotent_producer() {
    for (id, is_sent_again) in [(7, true), (0, false)] {
        let mut producer = Producer::new(ProducerConfig::default());
        producer.opened(&opened(id, 1)).unwrap();
        producer.push(|| MS, &Message::new("m")).unwrap();
        let sent = drain(&mut producer, MS);
        let unknown = Refusal::new(code::TIMEOUT, "no answer in time");
        producer.refused(MS, sent[0].ticket, &unknown);
        assert_eq!(drain(&mut producer, 1000 * MS).len() == 1, is_sent_again);
        let event = producer.poll_event();
        let failed = matches!(
            event,
            Some(ProducerEvent::Failed { refusal, .. }) if refusal.code == code::TIMEOUT
        );
        assert_eq!(failed, !is_sent_again);
        assert_eq!(producer.is_empty(), !is_sent_again);
    }
}

#[test]
fn a_forgotten_producer_begins_anew_and_undecided_batches_fail() {
    let mut producer = producer(1);
    producer.push(|| MS, &Message::new("a")).unwrap();
    let first = drain(&mut producer, MS);
    producer.published(&stored(&first[0]));
    producer.push(|| MS, &Message::new("b")).unwrap();
    let second = drain(&mut producer, MS);
    let gap = Refusal::new(code::SEQUENCE_GAP, "the next is 0");
    producer.refused(MS, second[0].ticket, &gap);
    let events: Vec<_> = std::iter::from_fn(|| producer.poll_event()).collect();
    assert!(events.contains(&ProducerEvent::Forgotten));
    producer.opened(&opened(8, 1)).unwrap();
    let third = drain(&mut producer, MS);
    assert_eq!(third[0].sequence.0, 0);
    producer.disconnected();
    producer.opened(&opened(9, 1)).unwrap();
    assert!(matches!(
        producer.poll_event(),
        Some(ProducerEvent::Failed { refusal, .. }) if refusal.code == code::TIMEOUT
    ));
    assert!(producer.is_empty());
}

#[test]
fn what_waits_is_bounded_and_bad_messages_spoil_nothing() {
    let mut producer = Producer::new(ProducerConfig {
        buffer_bytes_max: 10_000,
        compress: false,
        ..ProducerConfig::default()
    });
    assert_eq!(
        producer.push(|| MS, &Message::new("a")),
        Err(PushError::NotOpen)
    );
    producer.opened(&opened(1, 1)).unwrap();
    let huge = Message::new(vec![0; 5 << 20]);
    assert!(matches!(
        producer.push(|| MS, &huge),
        Err(PushError::Section(SectionError::BodyTooLarge { .. }))
    ));
    assert!(producer.is_empty());
    let mut taken = 0;
    while producer.push(|| MS, &Message::new(vec![1; 1000])).is_ok() {
        taken += 1;
    }
    assert!((8..=10).contains(&taken), "{taken}");
    producer.fail_all(&Refusal::new(code::CANCELLED, "closed"));
    assert_eq!(producer.buffered_bytes(), 0);
    assert!(matches!(
        producer.poll_event(),
        Some(ProducerEvent::Failed { count, .. }) if usize::from(count) == taken
    ));
}

#[test]
fn large_messages_do_not_share_a_section_that_would_be_too_large() {
    let mut producer = Producer::new(ProducerConfig {
        batch_bytes: 1 << 30,
        compress: false,
        ..ProducerConfig::default()
    });
    producer.opened(&opened(1, 1)).unwrap();
    let a = producer
        .push(|| MS, &Message::new(vec![0; 3 << 20]))
        .unwrap();
    let b = producer
        .push(|| MS, &Message::new(vec![0; 3 << 20]))
        .unwrap();
    assert_ne!(a.batch, b.batch);
    producer.flush();
    assert_eq!(drain(&mut producer, MS).len(), 2);
}
