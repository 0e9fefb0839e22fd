//! Topics that keep the newest message of each key: what is refused, and what of a grant is gone.

use tidegate_broker::request::{OneGroup, OneTopic, Outcome, Request, UpdateTopic};
use tidegate_broker::{Admission, RangeSet, Reply};
use tidegate_model::{ProducerId, TopicChange, code};

use crate::node::{Node, batch, group, policy, receive, subscribe, topic};

const ONE: ProducerId = ProducerId(1);

fn compact(node: &mut Node, compact: bool) {
    let request = UpdateTopic {
        topic: topic("t"),
        change: TopicChange {
            compact: Some(compact),
            ..TopicChange::default()
        },
    };
    node.admin(Request::UpdateTopic(request)).unwrap();
    node.flush_all();
}

/// Cursor, end, leased and parked of the group's queue.
fn cursor(node: &mut Node) -> (u64, u64, u64, u64) {
    let described = node.admin(Request::DescribeGroup(OneGroup { group: group("g") }));
    let Ok(Reply::Group(info)) = described else {
        panic!("a group's description");
    };
    let queue = info.subscriptions[0].queues[0];
    (queue.cursor.0, queue.next.0, queue.leased, queue.parked)
}

#[test]
fn a_message_without_a_key_is_refused_and_a_retry_of_an_earlier_one_is_not() {
    let mut node = Node::with(1, policy(3, &[]));
    let earlier = batch("t", 0, ONE, 0, 2);
    let later = batch("t", 0, ONE, 2, 2);
    assert!(matches!(node.publish(&earlier), Admission::Append { .. }));
    node.flush_all();
    compact(&mut node, true);
    let Admission::Refuse(refusal) = node.core.admit_with(&later, Some(1)) else {
        panic!("it has no key");
    };
    assert_eq!(refusal.code, code::KEY_REQUIRED);
    assert!(refusal.message.contains("record 1"), "{refusal:?}");
    assert!(matches!(
        node.core.admit_with(&earlier, Some(1)),
        Admission::Duplicate(_)
    ));
    assert!(matches!(node.publish(&later), Admission::Append { .. }));
    compact(&mut node, false);
    let last = batch("t", 0, ONE, 4, 1);
    assert!(matches!(
        node.core.admit_with(&last, Some(0)),
        Admission::Append { .. }
    ));
}

#[test]
fn whoever_reads_the_rules_learns_that_a_topic_is_compacted_or_not_or_gone() {
    let mut node = Node::with(2, policy(3, &[]));
    let mut version = node.core.topics_version();
    let mut compacted = |node: &Node| {
        let before = std::mem::replace(&mut version, node.core.topics_version());
        assert_ne!(version, before, "else nobody reads them anew");
        let topics = node.core.rules_page(None).topics.into_iter();
        topics
            .map(|rules| (rules.settings.compact, rules.queues.len()))
            .collect::<Vec<_>>()
    };
    compact(&mut node, true);
    assert_eq!(compacted(&node), [(true, 2)]);
    compact(&mut node, false);
    assert_eq!(compacted(&node), [(false, 2)]);
    compact(&mut node, true);
    assert_eq!(compacted(&node), [(true, 2)]);
    let topic = OneTopic { topic: topic("t") };
    node.admin(Request::DeleteTopic(topic)).unwrap();
    node.flush_all();
    assert_eq!(compacted(&node), []);
}

#[test]
fn what_is_gone_of_a_grant_is_done_and_its_credit_comes_back() {
    let mut node = Node::with(1, policy(3, &[0]));
    node.open("g", "t", 0);
    for _ in 0..3 {
        node.store("t", 0, 3);
    }
    node.subscribe(1, &subscribe("g", "t")).unwrap();
    node.credit(1, 6, 1 << 20);
    node.flush_all();
    let grants = node.take_grants();
    assert_eq!(grants.len(), 2);
    // All of the first, and one in the middle of the second.
    node.gone(&grants[0], &grants[0].offsets);
    node.gone(&grants[1], &RangeSet::one(4, 5));
    node.flush_all();
    let more = node.take_grants();
    let given: u64 = more.iter().map(|grant| grant.offsets.count()).sum();
    assert_eq!(given, 3, "for the four that are gone, all there is");
    assert_eq!(cursor(&mut node), (3, 9, 5, 0));
    // Twice is once.
    node.gone(&grants[0], &grants[0].offsets);
    let rest = grants[1].offsets.clone();
    node.settle("g", "t", &grants[1], &rest, Outcome::Ack);
    node.flush_all();
    assert_eq!(cursor(&mut node), (6, 9, 3, 0));
    node.advance(5_000);
    node.flush_all();
    node.restart(0);
    assert_eq!(cursor(&mut node).0, 6);
}

#[test]
fn what_is_gone_while_it_waits_for_another_attempt_is_done() {
    let mut node = Node::with(1, policy(3, &[1000]));
    node.open("g", "t", 0);
    node.store("t", 0, 2);
    node.receive(1, &receive("g", "t", 10, 0)).unwrap();
    node.flush_all();
    let grants = node.take_grants();
    let nack = Outcome::Nack { delay_ms: None };
    node.settle("g", "t", &grants[0], &grants[0].offsets, nack);
    node.flush_all();
    assert_eq!(cursor(&mut node), (2, 2, 0, 2), "two wait");
    node.advance(2000);
    node.receive(2, &receive("g", "t", 10, 0)).unwrap();
    node.flush_all();
    let again = node.take_grants();
    assert_eq!(again[0].attempt, 2);
    node.gone(&again[0], &again[0].offsets);
    // What is passed over is logged before long.
    node.advance(60_000);
    node.flush_all();
    assert_eq!(cursor(&mut node), (2, 2, 0, 0));
    node.restart(0);
    assert_eq!(cursor(&mut node), (2, 2, 0, 0));
}

#[test]
fn what_cannot_be_read_waits_and_is_given_up_and_its_credit_comes_back() {
    let mut node = Node::with(1, policy(2, &[1000]));
    node.open("g", "t", 0);
    for _ in 0..3 {
        node.store("t", 0, 3);
    }
    node.subscribe(1, &subscribe("g", "t")).unwrap();
    node.credit(1, 3, 1 << 20);
    node.flush_all();
    let first = node.take_grants().remove(0);
    node.unreadable(&first);
    node.flush_all();
    let next = node.take_grants().remove(0);
    assert_eq!(next.offsets, RangeSet::one(3, 6), "on the same credit");
    node.settle("g", "t", &next, &next.offsets, Outcome::Ack);
    node.flush_all();
    assert_eq!(cursor(&mut node), (6, 9, 0, 3), "the first three wait");
    node.credit(1, 3, 1 << 20);
    node.flush_all();
    let last = node.take_grants().remove(0);
    node.settle("g", "t", &last, &last.offsets, Outcome::Ack);
    node.advance(2000);
    node.credit(1, 3, 1 << 20);
    node.flush_all();
    let again = node.take_grants().remove(0);
    assert_eq!((again.attempt, &again.offsets), (2, &first.offsets));
    node.unreadable(&again);
    node.flush_all();
    assert_eq!(cursor(&mut node), (9, 9, 0, 0));
    node.restart(0);
    assert_eq!(cursor(&mut node), (9, 9, 0, 0));
}
