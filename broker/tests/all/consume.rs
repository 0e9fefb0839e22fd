//! Receiving, pushing, acknowledging and giving up, told as short stories.

use tidegate_broker::id::{SubscriptionId, WaiterId};
use tidegate_broker::reply::{CursorInfo, Reply};
use tidegate_broker::request::{Bind, OnError, OneGroup, OneTopic, Outcome, Request};
use tidegate_broker::{CatalogCommand, DeadLetterReason, Grant, Member, RangeSet};
use tidegate_model::code;

use crate::node::{
    Node, RECORD_BYTES, Verdict, binding, create_group, deploy, group, policy, receive, subscribe,
    topic,
};

const NACK: Outcome = Outcome::Nack { delay_ms: None };

/// Offsets and attempts of grants, in order.
fn seen(grants: &[Grant]) -> Vec<(u64, u16)> {
    grants
        .iter()
        .flat_map(|grant| grant.offsets.iter().map(|offset| (offset, grant.attempt)))
        .collect()
}

fn offsets(grants: &[Grant]) -> Vec<u64> {
    seen(grants).into_iter().map(|(offset, _)| offset).collect()
}

/// Everything that a receive gets.
fn get(node: &mut Node, id: u64, max: u32) -> Vec<Grant> {
    node.receive(id, &receive("g", "t", max, 0)).unwrap();
    node.flush_all();
    assert_eq!(node.waiters_done.pop(), Some((WaiterId(id), Ok(()))));
    node.take_grants()
}

fn ack(node: &mut Node, grant: &Grant) {
    let token = node.settle("g", "t", grant, &grant.offsets, Outcome::Ack);
    assert!(
        !node.settled.contains_key(&token),
        "not before it is durable"
    );
    node.flush_all();
    assert_eq!(node.settled[&token], [Ok(())]);
}

fn one_queue() -> Node {
    let mut node = Node::with(1, policy(3, &[1_000, 5_000]));
    node.open("g", "t", 0);
    node
}

#[test]
fn a_receive_takes_what_is_there_and_an_ack_ends_it() {
    let mut node = one_queue();
    node.store("t", 0, 3);
    node.store("t", 0, 2);
    let grants = get(&mut node, 1, 10);
    assert_eq!(seen(&grants), [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]);
    assert_eq!(grants.len(), 2, "a run lies within one stored batch");
    for grant in &grants {
        ack(&mut node, grant);
    }
    node.restart(0);
    assert!(get(&mut node, 2, 10).is_empty());
}

#[test]
fn a_receive_takes_no_more_than_it_asked_for() {
    let mut node = one_queue();
    node.store("t", 0, 10);
    assert_eq!(offsets(&get(&mut node, 1, 4)), [0, 1, 2, 3]);
    let mut request = receive("g", "t", 10, 0);
    request.max_bytes = 2 * RECORD_BYTES + 1;
    node.receive(2, &request).unwrap();
    node.flush_all();
    assert_eq!(offsets(&node.take_grants()), [4, 5]);
    request.max_bytes = 1;
    node.receive(3, &request).unwrap();
    node.flush_all();
    assert_eq!(
        offsets(&node.take_grants()),
        [6],
        "the first comes whatever its size"
    );
}

#[test]
fn a_receive_leases_no_more_runs_than_its_reply_holds() {
    let mut node = Node::with(2, policy(3, &[]));
    node.open("g", "t", 0);
    node.fetch_records = 4_096;
    for _ in 0..3_000 {
        node.store("t", 0, 1);
        node.store("t", 1, 1);
    }
    // What is looked at for the first two is ready for the third, in both queues.
    for id in 1..3 {
        node.receive(id, &receive("g", "t", 1, 0)).unwrap();
        node.flush_all();
        assert_eq!(node.take_grants().len(), 1);
    }
    let mut request = receive("g", "t", 10_000, 0);
    request.max_bytes = u32::MAX;
    node.receive(3, &request).unwrap();
    node.flush_all();
    assert_eq!(node.take_grants().len(), 4_096);
}

#[test]
fn a_long_poll_ends_with_the_first_message_or_empty_when_its_time_is_over() {
    let mut node = one_queue();
    node.receive(1, &receive("g", "t", 10, 5_000)).unwrap();
    node.flush_all();
    assert!(node.waiters_done.is_empty());
    node.store("t", 0, 1);
    assert_eq!(node.waiters_done, [(WaiterId(1), Ok(()))]);
    assert_eq!(offsets(&node.take_grants()), [0]);

    node.waiters_done.clear();
    node.receive(2, &receive("g", "t", 10, 5_000)).unwrap();
    node.flush_all();
    node.advance(4_999);
    assert!(node.waiters_done.is_empty());
    node.advance(1);
    assert_eq!(node.waiters_done, [(WaiterId(2), Ok(()))]);
    assert!(node.take_grants().is_empty());
}

#[test]
fn a_lapsed_lease_comes_again_after_the_backoff_and_is_dead_lettered_in_the_end() {
    let mut node = one_queue();
    node.store("t", 0, 1);
    assert_eq!(seen(&get(&mut node, 1, 1)), [(0, 1)]);
    node.advance(10_000);
    node.flush_all();
    assert!(get(&mut node, 2, 1).is_empty());
    node.advance(1_000);
    assert_eq!(seen(&get(&mut node, 3, 1)), [(0, 2)]);
    node.restart(0);
    assert_eq!(
        seen(&get(&mut node, 4, 1)),
        [(0, 2)],
        "the attempt survives, the lease doesn't"
    );
    node.advance(10_000);
    node.flush_all();
    node.advance(5_000);
    let last = get(&mut node, 5, 1);
    assert_eq!(seen(&last), [(0, 3)]);
    node.settle("g", "t", &last[0], &last[0].offsets, NACK);
    let reason = node.dead_letters[0].reason;
    assert_eq!(
        (node.dead_letters[0].attempts, reason),
        (3, DeadLetterReason::Attempts)
    );
    node.flush_all();
    assert_eq!(node.stored("%DLQ%g"), 1);
    node.advance(60_000);
    assert!(get(&mut node, 6, 1).is_empty());
}

#[test]
fn a_nack_may_say_how_long_to_wait() {
    let mut node = one_queue();
    node.store("t", 0, 4);
    let grant = get(&mut node, 1, 4).remove(0);
    let later = Outcome::Nack {
        delay_ms: Some(300),
    };
    node.settle("g", "t", &grant, &RangeSet::one(1, 3), later);
    node.flush_all();
    node.advance(299);
    assert!(get(&mut node, 2, 4).is_empty());
    node.advance(1);
    assert_eq!(seen(&get(&mut node, 3, 4)), [(1, 2), (2, 2)]);
}

#[test]
fn renewing_one_record_splits_the_run() {
    let mut node = one_queue();
    node.store("t", 0, 3);
    let grant = get(&mut node, 1, 3).remove(0);
    node.advance(9_000);
    let longer = Outcome::Extend {
        invisible_ms: 10_000,
    };
    let token = node.settle("g", "t", &grant, &RangeSet::one(1, 2), longer);
    assert_eq!(node.settled[&token], [Ok(())]);
    node.advance(2_000);
    node.flush_all();
    let token = node.settle("g", "t", &grant, &RangeSet::one(0, 2), longer);
    assert_eq!(node.settled[&token], [Err(code::LEASE_EXPIRED)]);
    node.advance(1_000);
    assert_eq!(seen(&get(&mut node, 2, 3)), [(0, 2), (2, 2)]);
    ack_part(&mut node, &grant, 1, Ok(()));
}

fn ack_part(
    node: &mut Node,
    grant: &Grant,
    offset: u64,
    expected: Result<(), tidegate_model::Code>,
) {
    let one = RangeSet::one(offset, offset + 1);
    let token = node.settle("g", "t", grant, &one, Outcome::Ack);
    node.flush_all();
    assert_eq!(node.settled[&token], [expected], "offset {offset}");
}

#[test]
fn late_acks_count_while_nobody_else_was_given_the_message() {
    let mut node = one_queue();
    node.store("t", 0, 3);
    let first = get(&mut node, 1, 3).remove(0);
    node.advance(10_000);
    node.flush_all();
    ack_part(&mut node, &first, 0, Ok(()));
    node.advance(1_000);
    let second = get(&mut node, 2, 1).remove(0);
    assert_eq!(seen(core::slice::from_ref(&second)), [(1, 2)]);
    ack_part(&mut node, &first, 1, Err(code::LEASE_EXPIRED));
    ack_part(&mut node, &second, 1, Ok(()));
    ack_part(&mut node, &second, 1, Ok(()));
    ack_part(&mut node, &first, 1, Err(code::LEASE_EXPIRED));
    assert_eq!(seen(&get(&mut node, 3, 3)), [(2, 2)]);
}

#[test]
fn an_ack_that_meets_the_lapse_on_its_way_to_the_log_wins() {
    let mut node = one_queue();
    node.store("t", 0, 2);
    let grant = get(&mut node, 1, 2).remove(0);
    node.advance(10_000);
    assert_eq!(node.pending.len(), 1, "the lapse");
    let longer = Outcome::Extend {
        invisible_ms: 60_000,
    };
    let token = node.settle("g", "t", &grant, &RangeSet::one(0, 1), longer);
    assert_eq!(node.settled[&token], [Err(code::LEASE_EXPIRED)]);
    node.settle("g", "t", &grant, &RangeSet::one(1, 2), Outcome::Ack);
    assert!(node.flush_one());
    node.advance(1_000);
    node.receive(2, &receive("g", "t", 2, 0)).unwrap();
    assert_eq!(seen(&node.take_grants()), [(0, 2)]);
    node.restart(1);
    assert_eq!(seen(&get(&mut node, 3, 2)), [(0, 2)]);
}

#[test]
fn a_new_binding_judges_what_waits_and_leaves_the_rest_as_it_was() {
    let mut node = one_queue();
    node.admin(deploy("odd", 1)).unwrap();
    let bind = Request::Bind(Bind {
        group: group("g"),
        topic: topic("t"),
        binding: binding("odd"),
    });
    node.admin(bind).unwrap();
    node.filter = |offset| {
        if offset % 2 == 1 {
            Verdict::Accept
        } else {
            Verdict::Reject
        }
    };
    node.store("t", 0, 6);
    node.store("t", 0, 6);
    let first = get(&mut node, 1, 1);
    assert_eq!(offsets(&first), [1]);
    node.filter = |_| Verdict::Accept;
    node.append_catalog(&CatalogCommand::Bind {
        group: group("g"),
        topic: topic("t"),
        binding: binding("odd"),
    });
    assert!(node.flush_one());
    assert_eq!(node.pending.len(), 1, "what was passed over is logged now");
    node.receive(2, &receive("g", "t", 20, 0)).unwrap();
    assert!(node.answer_fetch());
    assert_eq!(offsets(&node.take_grants()), [3, 5, 7, 9, 11]);
    node.store("t", 0, 1);
    assert_eq!(offsets(&get(&mut node, 3, 20)), [12]);
    ack(&mut node, &first[0]);
}

#[test]
fn a_new_binding_leaves_alone_what_is_about_to_be_parked() {
    let mut node = one_queue();
    node.admin(deploy("traps", 1)).unwrap();
    node.admin(Request::Bind(Bind {
        group: group("g"),
        topic: topic("t"),
        binding: binding("traps"),
    }))
    .unwrap();
    node.filter = |offset| match offset {
        2 => Verdict::Fail(OnError::Retry),
        _ => Verdict::Accept,
    };
    node.store("t", 0, 4);
    node.receive(1, &receive("g", "t", 1, 0)).unwrap();
    assert!(node.flush_one());
    node.append_catalog(&CatalogCommand::Bind {
        group: group("g"),
        topic: topic("t"),
        binding: binding("traps"),
    });
    assert!(node.answer_fetch());
    assert_eq!(offsets(&node.take_grants()), [0]);
    node.filter = |_| Verdict::Accept;
    assert!(node.flush_one());
    assert_eq!(node.pending.len(), 1, "the parking follows the binding");
    node.receive(2, &receive("g", "t", 9, 0)).unwrap();
    assert!(node.answer_fetch());
    assert_eq!(seen(&node.take_grants()), [(1, 1), (3, 1)]);
    node.flush_all();
    node.advance(1_000);
    assert_eq!(seen(&get(&mut node, 3, 9)), [(2, 2)]);
}

#[test]
fn a_repeated_ack_is_answered_only_once_the_first_is_durable() {
    let mut node = one_queue();
    node.store("t", 0, 1);
    let grant = get(&mut node, 1, 1).remove(0);
    let first = node.settle("g", "t", &grant, &grant.offsets, Outcome::Ack);
    let again = node.settle("g", "t", &grant, &grant.offsets, Outcome::Ack);
    assert!(node.settled.is_empty());
    node.flush_all();
    assert_eq!(node.settled[&first], [Ok(())]);
    assert_eq!(node.settled[&again], [Ok(())]);
}

#[test]
fn handles_from_before_a_restart_ack_renew_and_give_back() {
    let mut node = one_queue();
    node.store("t", 0, 4);
    let grant = get(&mut node, 1, 4).remove(0);
    node.restart(0);
    ack_part(&mut node, &grant, 0, Ok(()));
    let longer = Outcome::Extend {
        invisible_ms: 60_000,
    };
    let token = node.settle("g", "t", &grant, &RangeSet::one(1, 2), longer);
    assert_eq!(node.settled[&token], [Ok(())]);
    node.settle("g", "t", &grant, &RangeSet::one(2, 3), NACK);
    node.flush_all();
    assert_eq!(seen(&get(&mut node, 2, 4)), [(3, 1)]);
    node.advance(1_000);
    assert_eq!(seen(&get(&mut node, 3, 4)), [(2, 2)]);
    ack_part(&mut node, &grant, 1, Ok(()));
    ack_part(&mut node, &grant, 3, Err(code::LEASE_EXPIRED));
}

#[test]
fn members_share_what_there_is_within_their_credit() {
    let mut node = one_queue();
    for id in 1..=3 {
        node.subscribe(id, &subscribe("g", "t")).unwrap();
        node.credit(id, 4, 1 << 20);
    }
    for _ in 0..20 {
        node.store("t", 0, 1);
    }
    let grants = node.take_grants();
    for id in 1..=3 {
        let to = Member::Subscription(SubscriptionId(id));
        assert_eq!(grants.iter().filter(|grant| grant.to == to).count(), 4);
    }
    assert_eq!(offsets(&grants), (0..12).collect::<Vec<_>>());
    node.credit(2, 1, 0);
    node.flush_all();
    assert_eq!(offsets(&node.take_grants()), [12]);
    node.core.unsubscribe(SubscriptionId(1));
    node.credit(1, 10, 10);
    assert!(node.take_grants().is_empty());
}

#[test]
fn bytes_bound_a_subscription_as_messages_do() {
    let mut node = one_queue();
    node.store("t", 0, 10);
    node.subscribe(1, &subscribe("g", "t")).unwrap();
    node.credit(1, 10, 3 * u64::from(RECORD_BYTES));
    node.flush_all();
    assert_eq!(offsets(&node.take_grants()), [0, 1, 2]);
    node.credit(1, 0, 1);
    assert_eq!(offsets(&node.take_grants()), [3], "the last one overdraws");
    node.credit(1, 0, u64::from(RECORD_BYTES) - 1);
    assert!(node.take_grants().is_empty(), "and the debt is paid first");
}

#[test]
fn a_filters_rejections_are_passed_over_and_logged_lazily() {
    let mut node = one_queue();
    node.admin(deploy("odd", 1)).unwrap();
    node.admin(Request::Bind(Bind {
        group: group("g"),
        topic: topic("t"),
        binding: binding("odd"),
    }))
    .unwrap();
    node.filter = |offset| {
        if offset % 2 == 1 {
            Verdict::Accept
        } else {
            Verdict::Reject
        }
    };
    node.store("t", 0, 6);
    let before = node.log.len();
    let grants = get(&mut node, 1, 10);
    assert_eq!(offsets(&grants), [1, 3, 5]);
    assert_eq!(
        node.log.len(),
        before + 1,
        "the cursor's begin, nothing for what was rejected"
    );
    ack(&mut node, &grants[0]);
    assert_eq!(cursor_of(&mut node), 6);
    node.store("t", 0, 1);
    assert!(get(&mut node, 2, 10).is_empty());
    let before = node.log.len();
    node.advance(5_000);
    node.flush_all();
    assert_eq!(node.log.len(), before + 1);
    node.restart(0);
    assert_eq!(cursor_of(&mut node), 7);
}

fn cursor_of(node: &mut Node) -> u64 {
    first_queue(node).cursor.0
}

fn first_queue(node: &mut Node) -> CursorInfo {
    match node.admin(Request::DescribeGroup(OneGroup { group: group("g") })) {
        Ok(Reply::Group(info)) => info.subscriptions[0].queues[0],
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_on_error_policy_does_what_it_says() {
    for (on_error, delivered, dead) in [
        (OnError::DeadLetter, vec![0, 2, 3], 1),
        (OnError::Pass, vec![0, 1, 2, 3], 0),
        (OnError::Skip, vec![0, 2, 3], 0),
        (OnError::Retry, vec![0, 2, 3], 1),
        (OnError::Stop, vec![0], 0),
    ] {
        let mut node = one_queue();
        node.admin(deploy("traps", 1)).unwrap();
        node.admin(Request::Bind(Bind {
            group: group("g"),
            topic: topic("t"),
            binding: binding("traps"),
        }))
        .unwrap();
        node.filter = match on_error {
            OnError::DeadLetter => |offset| trap(offset, OnError::DeadLetter),
            OnError::Pass => |offset| trap(offset, OnError::Pass),
            OnError::Skip => |offset| trap(offset, OnError::Skip),
            OnError::Retry => |offset| trap(offset, OnError::Retry),
            OnError::Stop => |offset| trap(offset, OnError::Stop),
        };
        node.store("t", 0, 4);
        node.subscribe(1, &subscribe("g", "t")).unwrap();
        node.credit(1, 100, 1 << 20);
        node.flush_all();
        let grants = node.take_grants();
        for grant in &grants {
            ack(&mut node, grant);
        }
        for _ in 0..10 {
            node.advance(5_000);
            node.flush_all();
        }
        assert_eq!(offsets(&grants), delivered, "{on_error:?}");
        assert_eq!(node.stored("%DLQ%g"), dead, "{on_error:?}");
        assert!(node.take_grants().is_empty());
        if on_error == OnError::Stop {
            assert_eq!(first_queue(&mut node).stopped, Some(code::PLUGIN_TRAP));
            node.filter = |_| Verdict::Accept;
            node.admin(Request::Bind(Bind {
                group: group("g"),
                topic: topic("t"),
                binding: binding("traps"),
            }))
            .unwrap();
            node.flush_all();
            assert_eq!(
                offsets(&node.take_grants()),
                [1, 2, 3],
                "a new binding goes on"
            );
        }
        assert_eq!(first_queue(&mut node).stopped, None, "{on_error:?}");
    }
}

fn trap(offset: u64, on_error: OnError) -> Verdict {
    if offset == 1 {
        Verdict::Fail(on_error)
    } else {
        Verdict::Accept
    }
}

#[test]
fn messages_judged_again_are_delivered_once_the_filter_works() {
    let mut node = one_queue();
    node.admin(deploy("traps", 1)).unwrap();
    node.admin(Request::Bind(Bind {
        group: group("g"),
        topic: topic("t"),
        binding: binding("traps"),
    }))
    .unwrap();
    node.filter = |offset| trap(offset, OnError::Retry);
    node.store("t", 0, 3);
    assert_eq!(seen(&get(&mut node, 1, 9)), [(0, 1), (2, 1)]);
    node.filter = |_| Verdict::Accept;
    node.restart(0);
    node.advance(1_000);
    let grants = get(&mut node, 2, 9);
    assert_eq!(seen(&grants), [(1, 2)]);
    assert_eq!(seen(&get(&mut node, 3, 9)), [(0, 1), (2, 1)]);
}

#[test]
fn a_reset_moves_every_queue_and_voids_what_was_leased() {
    let mut node = one_queue();
    node.store("t", 0, 4);
    let grant = get(&mut node, 1, 4).remove(0);
    ack_part(&mut node, &grant, 0, Ok(()));
    let dry = node.reset("g", "t", 2, true);
    assert_eq!(node.resets[&dry], [(1, 2)]);
    let token = node.reset("g", "t", 0, false);
    assert!(!node.resets.contains_key(&token));
    ack_part(&mut node, &grant, 1, Err(code::LEASE_EXPIRED));
    node.flush_all();
    assert_eq!(node.resets[&token], [(1, 0)]);
    assert_eq!(
        seen(&get(&mut node, 2, 9)),
        [(0, 1), (1, 1), (2, 1), (3, 1)]
    );
    node.restart(0);
    ack_part(&mut node, &grant, 1, Err(code::LEASE_EXPIRED));
}

#[test]
fn removing_what_is_consumed_ends_its_members() {
    let removals = [
        Request::DeleteTopic(OneTopic { topic: topic("t") }),
        Request::DeleteGroup(OneGroup { group: group("g") }),
    ];
    for removal in removals {
        let mut node = one_queue();
        node.store("t", 0, 1);
        node.subscribe(1, &subscribe("g", "t")).unwrap();
        node.receive(2, &receive("g", "t", 1, 60_000)).unwrap();
        node.credit(1, 1, 1 << 20);
        node.flush_all();
        node.receive(3, &receive("g", "t", 1, 60_000)).unwrap();
        node.waiters_done.clear();
        let grants = node.take_grants();
        node.admin(removal).unwrap();
        let ended: Vec<_> = node
            .ended
            .iter()
            .map(|(id, why)| (id.0, why.code))
            .collect();
        assert_eq!(ended, [(1, code::GROUP_DELETED)]);
        assert!(node.waiters_done.iter().all(|(_, outcome)| {
            outcome
                .as_ref()
                .is_err_and(|why| why.code == code::GROUP_DELETED)
        }));
        assert!(!node.waiters_done.is_empty());
        let token = node.settle("g", "t", &grants[0], &grants[0].offsets, Outcome::Ack);
        assert!(node.settled[&token][0].is_err());
        node.advance(120_000);
        node.flush_all();
        node.restart(0);
    }
}

#[test]
fn a_group_made_anew_begins_anew() {
    let mut node = one_queue();
    node.store("t", 0, 2);
    for grant in get(&mut node, 1, 2) {
        ack(&mut node, &grant);
    }
    node.admin(Request::DeleteGroup(OneGroup { group: group("g") }))
        .unwrap();
    node.admin(create_group("g", policy(3, &[]))).unwrap();
    node.open("g", "t", 1);
    assert_eq!(offsets(&get(&mut node, 2, 9)), [1]);
}

#[test]
fn a_full_owner_is_asked_again() {
    let mut node = one_queue();
    node.store("t", 0, 1);
    node.receive(1, &receive("g", "t", 1, 1_000)).unwrap();
    assert!(node.flush_one());
    node.refuse_fetch();
    node.flush_all();
    assert!(node.take_grants().is_empty());
    node.advance(10);
    node.flush_all();
    assert_eq!(offsets(&node.take_grants()), [0]);
}

#[test]
fn consuming_ones_own_dead_letters_goes_on_while_queues_are_added() {
    let mut node = Node::with(8, policy(1, &[]));
    node.open("g", "t", 0);
    node.store("t", 0, 1);
    let grant = get(&mut node, 1, 1).remove(0);
    node.settle("g", "t", &grant, &grant.offsets, NACK);
    node.flush_all();
    node.admin(create_group("undertaker", policy(3, &[])))
        .unwrap();
    node.open("undertaker", "%DLQ%g", 0);
    node.subscribe(5, &subscribe("undertaker", "%DLQ%g"))
        .unwrap();
    node.credit(5, 100, 1 << 20);
    node.flush_all();
    assert_eq!(offsets(&node.take_grants()), [0]);
    node.store("t", 1, 1);
    let grant = get(&mut node, 2, 1).remove(0);
    node.settle("g", "t", &grant, &grant.offsets, NACK);
    node.flush_all();
    let letters = node.take_grants();
    assert_eq!(offsets(&letters), [0]);
    assert_eq!(letters[0].queue_index, 1);
    assert_eq!(node.stored("%DLQ%g"), 2);
}
