//! Groups: cursors that move, stay and are moved.

use std::time::Duration;

use tidegate_client::{ConsumerOptions, CreateGroup, ResetGroup, StartAt};

use crate::sandbox::Sandbox;
use crate::sdk::{
    ack, bodies, create_group, create_topic, group, is_done, membership, offset, publish_bodies,
    receive, soon, source,
};

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_ends_with_the_first_message() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 4).await;
    create_group(&client, "g", 3, Duration::ZERO).await;
    let options = membership("g", "t");
    let wait = Duration::from_secs(1);
    let nothing = soon("an empty answer", client.receive(&options, 10, wait))
        .await
        .unwrap();
    assert_eq!(nothing, []);

    // Far beyond what the message takes: the answer comes with it, not with the end of the wait.
    let wait = Duration::from_secs(240);
    let waiting = client.clone();
    let asked = options.clone();
    let poll = tokio::spawn(async move { waiting.receive(&asked, 10, wait).await.unwrap() });
    publish_bodies(&client, "t", ["hello"]).await;
    let received = soon("the message", poll).await.unwrap();
    assert_eq!(bodies(&received), ["hello"]);
    assert_eq!(received[0].attempt, 1);
    ack(&client, &options, &received).await;
    assert!(is_done(&client, "g", "t").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_independent_and_begin_where_they_say() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 1).await;
    for name in ["early", "late", "middle"] {
        create_group(&client, name, 3, Duration::ZERO).await;
    }
    publish_bodies(&client, "t", numbers(0..10)).await;

    let mut late = soon("a member", async {
        let options = ConsumerOptions {
            start: StartAt::Latest,
            ..membership("late", "t")
        };
        client.consumer(&options).await.unwrap()
    })
    .await;
    let early = membership("early", "t");
    let received = receive(&client, &early, 10).await;
    assert_eq!(bodies(&received), numbers(0..10));
    ack(&client, &early, &received).await;

    publish_bodies(&client, "t", numbers(10..15)).await;
    let mut from_latest = Vec::new();
    while from_latest.len() < 5 {
        from_latest.push(
            soon("what came after it joined", late.next())
                .await
                .unwrap(),
        );
    }
    assert_eq!(bodies(&from_latest), numbers(10..15));
    let middle = ConsumerOptions {
        start: offset(7),
        ..membership("middle", "t")
    };
    assert_eq!(bodies(&receive(&client, &middle, 8).await), numbers(7..15));
    assert_eq!(bodies(&receive(&client, &early, 5).await), numbers(10..15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_reset_to_offset_time_and_earliest() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 1).await;
    create_group(&client, "g", 3, Duration::ZERO).await;
    publish_bodies(&client, "t", numbers(0..5)).await;
    let options = membership("g", "t");
    let first = receive(&client, &options, 5).await;
    ack(&client, &options, &first).await;
    let last_of_first = first[4].append_time;
    // Appended in a later millisecond, so that a time stands between them.
    let second = loop {
        let number = publish_bodies(&client, "t", ["x"]).await[0].offset.0;
        let received = receive(&client, &options, 1).await;
        ack(&client, &options, &received).await;
        if received[0].append_time > last_of_first {
            break (number, received[0].append_time);
        }
    };

    for (to, at) in [
        (offset(3), 3),
        (StartAt::Earliest, 0),
        (StartAt::Time(second.1), second.0),
        (StartAt::Latest, second.0 + 1),
    ] {
        let mut reset = ResetGroup {
            group: group("g"),
            source: source("t"),
            to,
            dry_run: true,
        };
        let planned = soon("a plan", client.reset_group(&reset)).await.unwrap();
        assert_eq!(planned[0].to.0, at, "{to:?}");
        reset.dry_run = false;
        let moved = soon("a reset", client.reset_group(&reset)).await.unwrap();
        assert_eq!(moved, planned, "{to:?}");
        let count = second.0 + 1 - at;
        let again = receive(&client, &options, usize::try_from(count).unwrap()).await;
        let offsets: Vec<u64> = again.iter().map(|received| received.offset.0).collect();
        assert_eq!(offsets, (at..=second.0).collect::<Vec<_>>(), "{to:?}");
        ack(&client, &options, &again).await;
        assert!(is_done(&client, "g", "t").await, "{to:?}");
    }

    let told = sandbox
        .tidegate
        .ok(["group", "reset", "g", "--source", "t", "--to", "2", "--yes"]);
    assert!(told.contains("moved"), "{told}");
    let again = receive(&client, &options, usize::try_from(second.0 - 1).unwrap()).await;
    assert_eq!(again[0].offset.0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_survive_a_restart() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 2).await;
    create_group(&client, "g", 3, Duration::ZERO).await;
    publish_bodies(&client, "t", numbers(0..100)).await;
    let options = membership("g", "t");
    let received = receive(&client, &options, 100).await;
    // Every other one: ranges with gaps have to survive as well.
    let (done, open): (Vec<_>, Vec<_>) = received
        .into_iter()
        .partition(|received| received.offset.0 % 2 == 0);
    ack(&client, &options, &done).await;
    soon("closing", client.close()).await;

    let stopped = sandbox.stop();
    assert_eq!(stopped.code, 0, "{stopped:#?}");
    sandbox.start_again();
    let client = sandbox.client().await;
    let again = receive(&client, &options, open.len()).await;
    let sorted = |received: &[_]| {
        let mut bodies = bodies(received);
        bodies.sort();
        bodies
    };
    assert_eq!(sorted(&again), sorted(&open));
    ack(&client, &options, &again).await;
    assert!(is_done(&client, "g", "t").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_group_ends_its_members() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 1).await;
    let create = CreateGroup {
        group: group("g"),
        policy: None,
    };
    soon("a group", client.create_group(&create)).await.unwrap();
    let mut member = soon("a member", client.consumer(&membership("g", "t")))
        .await
        .unwrap();
    soon("removal", client.delete_group(&group("g")))
        .await
        .unwrap();
    let ended = soon("the member's end", member.next()).await.unwrap_err();
    assert_eq!(ended.code, tidegate_model::code::GROUP_DELETED, "{ended}");
}

/// The broker takes a batch for credit by its mean message, rounded up; the client gives back what it
/// got. What is lost of the credit shows in deliveries, which are smaller and smaller then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_does_not_dwindle_however_much_a_member_gets() {
    const MESSAGES: usize = 100_000;
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 1).await;
    create_group(&client, "g", 3, Duration::ZERO).await;
    publish_bodies(&client, "t", (0..MESSAGES).map(|_| "x")).await;
    // Up to a byte too much for each message would use this up before the end.
    let options = ConsumerOptions {
        credit_bytes: 48 * 1024,
        ..membership("g", "t")
    };
    let mut member = soon("a member", client.consumer(&options)).await.unwrap();
    let mut deliveries = Vec::new();
    let mut got = 0;
    while got < MESSAGES {
        let batch = soon("a batch", member.next_batch()).await.unwrap();
        got += batch.len();
        deliveries.push(batch.len());
        let handles: Vec<_> = batch.into_iter().map(|received| received.handle).collect();
        soon("room to ack", member.ack_many(&handles))
            .await
            .unwrap();
    }
    soon("the acks", member.settle()).await.unwrap();
    assert!(is_done(&client, "g", "t").await);
    // A credit that is used up a little more each time ends with deliveries of a few dozen.
    let (first, last) = (&deliveries[..8], &deliveries[deliveries.len() * 3 / 4..]);
    let (first, last) = (first.iter().max(), last.iter().max());
    assert!(
        last.map(|last| last * 4) >= first.copied(),
        "{last:?} after {first:?}"
    );
}
