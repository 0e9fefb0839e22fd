//! What goes by retention: cursors follow, waiting consumers go on, pages tell what may go.

use tidegate_broker::reply::Reply;
use tidegate_broker::request::{OneGroup, OneTopic, Outcome, Request, RetryPolicy, UpdateTopic};
use tidegate_model::{ProducerId, TopicChange};

use crate::node::{Node, batch, create_topic, group, policy, receive, subscribe, topic};

/// Topic `t` with one queue of five batches of two messages, and group `g` on it.
fn filled(retry: RetryPolicy) -> Node {
    let mut node = Node::with(1, retry);
    node.open("g", "t", 0);
    for _ in 0..5 {
        node.store("t", 0, 2);
    }
    node
}

fn cursor(node: &mut Node) -> (u64, u64, u64, u64) {
    let described = node.admin(Request::DescribeGroup(OneGroup { group: group("g") }));
    let Ok(Reply::Group(info)) = described else {
        panic!("a group's description");
    };
    let queue = info.subscriptions[0].queues[0];
    (queue.cursor.0, queue.next.0, queue.leased, queue.parked)
}

fn offsets(node: &mut Node) -> Vec<u64> {
    let grants = node.take_grants();
    grants
        .iter()
        .flat_map(|grant| grant.offsets.iter())
        .collect()
}

#[test]
fn a_cursor_jumps_to_what_is_left_and_goes_on_there() {
    let mut node = filled(policy(3, &[]));
    node.trim("t", 0, 2);
    node.flush_all();
    assert_eq!(cursor(&mut node), (6, 10, 0, 0));
    node.receive(1, &receive("g", "t", 100, 0)).unwrap();
    node.flush_all();
    assert_eq!(offsets(&mut node), [6, 7, 8, 9]);
    node.restart(0);
    node.receive(2, &receive("g", "t", 100, 0)).unwrap();
    node.flush_all();
    assert_eq!(offsets(&mut node), [6, 7, 8, 9]);
}

#[test]
fn a_group_that_comes_to_an_emptied_queue_waits_for_the_next_message() {
    let mut node = Node::with(1, policy(3, &[]));
    for _ in 0..3 {
        node.store("t", 0, 2);
    }
    node.trim("t", 0, 2);
    node.flush_all();
    // As if the catalogue had noted the start before the trim.
    node.open("g", "t", 0);
    node.subscribe(1, &subscribe("g", "t")).unwrap();
    node.credit(1, 10, 1_000);
    node.flush_all();
    assert!(offsets(&mut node).is_empty());
    node.store("t", 0, 1);
    assert_eq!(offsets(&mut node), [6]);
}

#[test]
fn a_waiting_consumer_gets_the_next_message_after_its_queue_was_emptied() {
    let mut node = filled(policy(3, &[]));
    node.subscribe(1, &subscribe("g", "t")).unwrap();
    node.credit(1, 1, 10_000);
    node.flush_all();
    assert_eq!(offsets(&mut node), [0]);
    // Fetched ahead of credit, and gone before it comes.
    node.trim("t", 0, 4);
    node.flush_all();
    node.credit(1, 100, 10_000);
    node.flush_all();
    assert!(offsets(&mut node).is_empty());
    node.store("t", 0, 2);
    assert_eq!(offsets(&mut node), [10, 11]);
}

#[test]
fn what_waits_for_another_attempt_goes_with_its_batch_and_holders_may_still_ack() {
    let mut node = filled(policy(3, &[60_000]));
    node.receive(1, &receive("g", "t", 4, 0)).unwrap();
    node.flush_all();
    let grants = node.take_grants();
    let nack = Outcome::Nack { delay_ms: None };
    node.settle("g", "t", &grants[0], &grants[0].offsets, nack);
    node.flush_all();
    assert_eq!(cursor(&mut node).3, 2);
    node.trim("t", 0, 1);
    node.flush_all();
    assert_eq!(node.lost, 4, "two were parked, two are held");
    assert_eq!(cursor(&mut node), (4, 10, 2, 0));
    let token = node.settle("g", "t", &grants[1], &grants[1].offsets, Outcome::Ack);
    node.flush_all();
    assert_eq!(node.settled[&token], [Ok(())]);
    node.advance(120_000);
    node.receive(2, &receive("g", "t", 100, 0)).unwrap();
    node.flush_all();
    assert_eq!(offsets(&mut node), [4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_lease_that_lapses_after_its_batch_is_gone_leaves_nothing_behind() {
    let mut node = filled(policy(3, &[0]));
    node.receive(1, &receive("g", "t", 2, 0)).unwrap();
    node.flush_all();
    assert_eq!(offsets(&mut node), [0, 1]);
    node.trim("t", 0, 0);
    node.flush_all();
    node.advance(20_000);
    node.flush_all();
    assert_eq!(cursor(&mut node), (2, 10, 0, 0));
    node.receive(2, &receive("g", "t", 100, 0)).unwrap();
    node.flush_all();
    assert_eq!(offsets(&mut node).first(), Some(&2));
}

#[test]
fn pages_have_every_topic_and_queue_once() {
    let mut node = Node::new();
    for index in 0..7 {
        node.admin(create_topic(&format!("t{index}"), 1_000))
            .unwrap();
    }
    let removed = Request::DeleteTopic(OneTopic { topic: topic("t3") });
    node.admin(removed).unwrap();
    let (mut queues, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = node.core.rules_page(after);
        assert_eq!(page.last_queue.0, 7_000);
        queues.extend(page.topics.iter().flat_map(|topic| &topic.queues).copied());
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, 2);
    assert_eq!(queues.len(), 6_000);
    assert!(queues.is_sorted());
}

#[test]
fn a_message_is_consumed_once_every_group_is_past_it_and_nothing_waits_before_it() {
    let mut node = filled(policy(3, &[60_000]));
    assert!(node.core.consumed_page(None).rows.is_empty());
    node.admin(Request::UpdateTopic(UpdateTopic {
        topic: topic("t"),
        change: TopicChange {
            retain_consumed: Some(true),
            ..TopicChange::default()
        },
    }))
    .unwrap();
    let consumed = |node: &Node| -> Vec<u64> {
        let page = node.core.consumed_page(None);
        assert_eq!(page.next, None);
        page.rows.iter().map(|(_, offset)| offset.0).collect()
    };
    assert_eq!(consumed(&node), [0]);
    node.receive(1, &receive("g", "t", 6, 0)).unwrap();
    node.flush_all();
    let grants = node.take_grants();
    for (grant, outcome) in [
        (&grants[0], Outcome::Ack),
        (&grants[1], Outcome::Nack { delay_ms: None }),
        (&grants[2], Outcome::Ack),
    ] {
        node.settle("g", "t", grant, &grant.offsets, outcome);
    }
    node.flush_all();
    assert_eq!(cursor(&mut node).0, 6);
    assert_eq!(
        consumed(&node),
        [2],
        "the second batch waits for its attempt"
    );
    let before = node.core.topics_version();
    assert!(matches!(
        node.publish(&batch("t", 0, ProducerId(0), 0, 1)),
        tidegate_broker::Admission::Append { .. }
    ));
    node.flush_all();
    assert_eq!(node.core.topics_version(), before);
    node.admin(create_topic("u", 1)).unwrap();
    assert!(node.core.topics_version() > before);
}
