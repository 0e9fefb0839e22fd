//! Idempotent producers: what is stored once however often it is sent.

use tidegate_broker::limit::{OUTCOMES_MAX, PRODUCER_IDLE_MS};
use tidegate_broker::request::{
    EndProducer, OneTopic, OpenProducer, ProducerIdentity, RetryPolicy,
};
use tidegate_broker::{Admission, Request};
use tidegate_model::{Code, Offset, ProducerEpoch, ProducerId, QueueId, Sequence, code};

use crate::node::{Node, batch, topic};

const ONE: ProducerId = ProducerId(1);

fn node() -> Node {
    Node::with(2, RetryPolicy::default())
}

fn refused(admission: Admission) -> Code {
    match admission {
        Admission::Refuse(refusal) => refusal.code,
        other => panic!("{other:?}"),
    }
}

fn base(admission: Admission) -> u64 {
    match admission {
        Admission::Duplicate(published) => {
            assert!(published.duplicate);
            published.base_offset.0
        }
        other => panic!("{other:?}"),
    }
}

fn queue(node: &Node, index: usize) -> QueueId {
    node.core.catalog().topic(&topic("t")).unwrap().queues[index]
}

fn appended(node: &mut Node, sequence: u64, count: u16) {
    let admission = node.publish(&batch("t", 0, ONE, sequence, count));
    assert!(
        matches!(admission, Admission::Append { .. }),
        "{admission:?}"
    );
}

#[test]
fn a_retry_repeats_the_first_outcome_also_after_a_restart() {
    let mut node = node();
    appended(&mut node, 0, 3);
    appended(&mut node, 3, 2);
    assert!(matches!(
        node.publish(&batch("t", 0, ONE, 3, 2)),
        Admission::InFlight { .. }
    ));
    node.flush_all();
    for snapshot in [false, true] {
        if snapshot {
            node.take_snapshot();
        }
        node.restart(0);
        assert_eq!(base(node.publish(&batch("t", 0, ONE, 0, 3))), 0);
        assert_eq!(base(node.publish(&batch("t", 0, ONE, 3, 2))), 3);
    }
    appended(&mut node, 5, 1);
}

#[test]
fn sequences_neither_skip_nor_change() {
    let mut node = node();
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, 1, 1))),
        code::SEQUENCE_GAP
    );
    appended(&mut node, 0, 4);
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, 5, 1))),
        code::SEQUENCE_GAP
    );
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, 0, 3))),
        code::BATCH_INVALID
    );
    node.flush_all();
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, 0, 3))),
        code::BATCH_INVALID
    );
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, 2, 2))),
        code::SEQUENCE_TOO_OLD
    );
    let other_queue = node.publish(&batch("t", 1, ONE, 0, 1));
    assert!(
        matches!(other_queue, Admission::Append { .. }),
        "sequences count per queue"
    );
}

#[test]
fn a_higher_epoch_fences_the_lower_and_begins_anew() {
    let mut node = node();
    appended(&mut node, 0, 1);
    node.flush_all();
    let mut next = batch("t", 0, ONE, 1, 1);
    next.producer_epoch = ProducerEpoch(1);
    assert_eq!(refused(node.publish(&next)), code::SEQUENCE_GAP);
    next.sequence = Sequence(0);
    assert!(matches!(node.publish(&next), Admission::Append { .. }));
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, 1, 1))),
        code::PRODUCER_FENCED
    );
    node.flush_all();
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, 1, 1))),
        code::PRODUCER_FENCED
    );
    assert_eq!(base(node.publish(&next)), 1);
    let bounds = |_: &Node| NoBounds;
    let resume = |epoch| OpenProducer {
        topic: topic("t"),
        identity: ProducerIdentity::Resumed(ONE, ProducerEpoch(epoch)),
    };
    let refusal = node.core.open_producer(&resume(0), ONE, &bounds(&node));
    assert_eq!(refusal.unwrap_err().code, code::PRODUCER_FENCED);
    let info = node
        .core
        .open_producer(&resume(1), ProducerId(9), &NoBounds);
    assert_eq!(info.unwrap().producer, ONE);
}

#[test]
fn of_a_non_idempotent_producer_nothing_is_remembered() {
    let mut node = node();
    let open = OpenProducer {
        topic: topic("t"),
        identity: ProducerIdentity::NonIdempotent,
    };
    let info = node.core.open_producer(&open, ONE, &NoBounds).unwrap();
    assert_eq!(
        (info.producer, info.epoch),
        (ProducerId(0), ProducerEpoch(0))
    );
    let resume = OpenProducer {
        identity: ProducerIdentity::Resumed(info.producer, info.epoch),
        ..open
    };
    let refusal = node.core.open_producer(&resume, ONE, &NoBounds);
    assert_eq!(refusal.unwrap_err().code, code::INVALID_ARGUMENT);
    for sequence in [0, 0, 7] {
        let admission = node.publish(&batch("t", 0, info.producer, sequence, 1));
        assert!(
            matches!(admission, Admission::Append { .. }),
            "{admission:?}"
        );
        node.flush_all();
    }
    assert_eq!(node.end(queue(&node, 0)), 3);
}

#[test]
fn of_a_producer_that_has_ended_nothing_is_remembered() {
    let mut node = node();
    let end = |epoch, queues: &[u32]| EndProducer {
        topic: topic("t"),
        producer: ONE,
        epoch: ProducerEpoch(epoch),
        queues: queues.to_vec(),
    };
    for queue in 0..2 {
        let admission = node.publish(&batch("t", queue, ONE, 0, 1));
        assert!(matches!(admission, Admission::Append { .. }));
    }
    // What is on its way is not done with, whatever its client says.
    node.core.end_producer(&end(0, &[0, 1]));
    node.flush_all();
    assert_eq!(node.core.remembered_producers(), 2);
    // Nor is another life, nor a queue that isn't named. What isn't there is passed over.
    node.core.end_producer(&end(1, &[0, 1]));
    node.core.end_producer(&end(0, &[1, 77]));
    assert_eq!(node.core.remembered_producers(), 1);
    assert_eq!(base(node.publish(&batch("t", 0, ONE, 0, 1))), 0);
    let again = node.publish(&batch("t", 1, ONE, 0, 1));
    assert!(matches!(again, Admission::Append { .. }), "{again:?}");
    let later = node.publish(&batch("t", 1, ONE, 7, 1));
    assert_eq!(refused(later), code::SEQUENCE_GAP);
}

struct NoBounds;

impl tidegate_broker::QueueBounds for NoBounds {
    fn bounds(&self, _: QueueId) -> (Offset, Offset) {
        (Offset(0), Offset(0))
    }

    fn bytes(&self, _: QueueId) -> u64 {
        0
    }
}

#[test]
fn a_failed_append_takes_later_ones_with_it() {
    let mut node = node();
    appended(&mut node, 0, 1);
    let first = node.queue_admitted(1);
    let _second = node.queue_admitted(2);
    node.core
        .append_failed(first, ONE, ProducerEpoch(0), Sequence(1));
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, 2, 1))),
        code::SEQUENCE_GAP
    );
    appended(&mut node, 1, 1);
}

impl Node {
    /// Admits a batch of one record of producer 1 without appending it.
    fn queue_admitted(&mut self, sequence: u64) -> QueueId {
        match self.core.admit(&batch("t", 0, ONE, sequence, 1)) {
            Admission::Append { queue, .. } => queue,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn so_many_outcomes_are_known_and_so_many_batches_may_be_on_their_way() {
    let mut node = node();
    for sequence in 0..OUTCOMES_MAX as u64 {
        appended(&mut node, sequence, 1);
    }
    let next = batch("t", 0, ONE, OUTCOMES_MAX as u64, 1);
    assert_eq!(refused(node.publish(&next)), code::OVERLOADED);
    node.flush_all();
    assert_eq!(base(node.publish(&batch("t", 0, ONE, 0, 1))), 0);
    assert!(matches!(node.publish(&next), Admission::Append { .. }));
    node.flush_all();
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, 0, 1))),
        code::SEQUENCE_TOO_OLD
    );
    assert_eq!(base(node.publish(&batch("t", 0, ONE, 1, 1))), 1);
}

#[test]
fn idle_producers_are_forgotten_by_the_logs_own_time() {
    let mut node = node();
    appended(&mut node, 0, 1);
    node.flush_all();
    node.advance(PRODUCER_IDLE_MS);
    assert_eq!(base(node.publish(&batch("t", 0, ONE, 0, 1))), 0);
    // Any batch of the shard moves its time on.
    node.store("t", 0, 1);
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, 1, 1))),
        code::SEQUENCE_GAP
    );
    node.restart(0);
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, 1, 1))),
        code::SEQUENCE_GAP
    );
}

#[test]
fn the_wrong_place_is_refused() {
    let mut node = node();
    assert_eq!(
        refused(node.publish(&batch("u", 0, ONE, 0, 1))),
        code::TOPIC_NOT_FOUND
    );
    assert_eq!(
        refused(node.publish(&batch("t", 2, ONE, 0, 1))),
        code::QUEUE_NOT_FOUND
    );
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, 0, 0))),
        code::BATCH_INVALID
    );
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, 0, 4_097))),
        code::BATCH_INVALID
    );
    assert_eq!(
        refused(node.publish(&batch("t", 0, ONE, u64::MAX, 1))),
        code::SEQUENCE_GAP
    );
    appended(&mut node, 0, 1);
    node.flush_all();
    let mut moved = batch("t", 0, ONE, 1, 1);
    moved.layout_version = 2;
    assert_eq!(refused(node.publish(&moved)), code::LAYOUT_CHANGED);
    moved.sequence = Sequence(0);
    assert_eq!(
        base(node.publish(&moved)),
        0,
        "a retry is known whatever its layout"
    );
}

#[test]
fn a_topic_made_anew_knows_no_producer() {
    let mut node = node();
    appended(&mut node, 0, 1);
    node.flush_all();
    let old = queue(&node, 0);
    node.admin(Request::DeleteTopic(OneTopic { topic: topic("t") }))
        .unwrap();
    node.admin(crate::node::create_topic("t", 2)).unwrap();
    assert_ne!(queue(&node, 0), old);
    appended(&mut node, 0, 1);
}
