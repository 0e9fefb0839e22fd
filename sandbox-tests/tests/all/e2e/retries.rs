//! Messages that weren't acknowledged: they come again, and at last go to the dead-letter topic.

use std::time::{Duration, Instant};

use tidegate_client::ConsumerOptions;
use tidegate_model::Value;

use crate::sandbox::Sandbox;
use crate::sdk::{
    ack, bodies, create_group, create_topic, is_done, membership, publish_bodies, read_queue,
    receive, soon, source,
};

const BACKOFF: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nacked_message_comes_again_after_the_backoff() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 1).await;
    create_group(&client, "g", 5, BACKOFF).await;
    publish_bodies(&client, "t", ["bad", "good"]).await;
    let mut member = soon("a member", client.consumer(&membership("g", "t")))
        .await
        .unwrap();
    let bad = soon("the first", member.next()).await.unwrap();
    let good = soon("the second", member.next()).await.unwrap();
    assert_eq!(bodies(&[bad.clone(), good.clone()]), ["bad", "good"]);
    let nacked = Instant::now();
    member.nack(&bad.handle, None).await.unwrap();
    member.ack(&good.handle).await.unwrap();
    assert_eq!(soon("settling", member.settle()).await.unwrap().refused, []);

    let again = soon("the first again", member.next()).await.unwrap();
    assert!(
        nacked.elapsed() >= BACKOFF,
        "it came {:?} after the nack",
        nacked.elapsed()
    );
    assert_eq!((again.attempt, again.offset), (2, bad.offset));
    assert_eq!(again.message, bad.message);

    // A delay of the consumer's own goes before the group's.
    let delay = Duration::from_millis(900);
    let nacked = Instant::now();
    member.nack(&again.handle, Some(delay)).await.unwrap();
    let third = soon("the third time", member.next()).await.unwrap();
    assert!(
        nacked.elapsed() >= delay,
        "it came {:?} after the nack",
        nacked.elapsed()
    );
    assert_eq!(third.attempt, 3);
    member.ack(&third.handle).await.unwrap();
    assert_eq!(soon("settling", member.close()).await.unwrap().refused, []);
    assert!(is_done(&client, "g", "t").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lapsed_lease_comes_again_and_its_handle_is_void() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 1).await;
    create_group(&client, "g", 5, Duration::ZERO).await;
    publish_bodies(&client, "t", ["slow"]).await;
    let options = ConsumerOptions {
        invisible: Duration::from_millis(500),
        ..membership("g", "t")
    };
    let leased = Instant::now();
    let first = receive(&client, &options, 1).await;
    let second = receive(
        &client,
        &ConsumerOptions {
            invisible: Duration::from_secs(60),
            ..options.clone()
        },
        1,
    )
    .await;
    assert!(
        leased.elapsed() >= options.invisible,
        "it came after {:?}",
        leased.elapsed()
    );
    assert_eq!((first[0].attempt, second[0].attempt), (1, 2));
    assert_eq!(first[0].offset, second[0].offset);
    let handles = [first[0].handle.clone()];
    let late = client.ack(&options.group, &options.source, &handles);
    let outcome = soon("an answer", late).await.unwrap();
    assert_eq!(outcome, [Err(tidegate_model::code::LEASE_EXPIRED)]);
    ack(&client, &options, &second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_lease_outlives_its_first_duration() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 1).await;
    create_group(&client, "g", 5, Duration::ZERO).await;
    publish_bodies(&client, "t", ["long work"]).await;
    let options = ConsumerOptions {
        invisible: Duration::from_secs(2),
        ..membership("g", "t")
    };
    let mut member = soon("a member", client.consumer(&options)).await.unwrap();
    let leased = soon("the message", member.next()).await.unwrap();
    member
        .extend(&leased.handle, Duration::from_secs(120))
        .await
        .unwrap();
    assert_eq!(soon("settling", member.settle()).await.unwrap().refused, []);
    // A long poll beyond the first lease's end finds nothing.
    let nothing = client.receive(&options, 1, options.invisible + Duration::from_secs(1));
    assert_eq!(soon("an empty answer", nothing).await.unwrap(), []);
    member.ack(&leased.handle).await.unwrap();
    assert_eq!(soon("settling", member.close()).await.unwrap().refused, []);
    assert!(is_done(&client, "g", "t").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_without_attempts_left_is_a_dead_letter() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 1).await;
    create_group(&client, "g", 2, Duration::from_millis(10)).await;
    publish_bodies(&client, "t", ["fine", "poison", "fine too"]).await;
    let mut member = soon("a member", client.consumer(&membership("g", "t")))
        .await
        .unwrap();
    let mut attempts = Vec::new();
    for _ in 0..4 {
        let received = soon("a message", member.next()).await.unwrap();
        let body = bodies(std::slice::from_ref(&received)).remove(0);
        if body == "poison" {
            attempts.push(received.attempt);
            member.nack(&received.handle, None).await.unwrap();
        } else {
            member.ack(&received.handle).await.unwrap();
        }
    }
    assert_eq!(attempts, [1, 2]);
    assert_eq!(soon("settling", member.settle()).await.unwrap().refused, []);

    // An ordinary topic: a group reads it like any other.
    create_group(&client, "undertaker", 2, Duration::ZERO).await;
    let letters = membership("undertaker", "%DLQ%g");
    let mut waiting = soon("the dead letter", async {
        loop {
            // It is made with its first letter.
            match client.receive(&letters, 1, Duration::from_secs(1)).await {
                Ok(received) if !received.is_empty() => return received,
                Ok(_) => {}
                Err(e) if e.code == tidegate_model::code::TOPIC_NOT_FOUND => {
                    tokio::task::yield_now().await;
                }
                Err(e) => panic!("{e}"),
            }
        }
    })
    .await;
    let letter = waiting.remove(0);
    assert_eq!(bodies(std::slice::from_ref(&letter)), ["poison"]);
    let property = |name: &str| {
        let found = letter.message.properties.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.clone())
    };
    assert_eq!(
        property("dlq.origin.topic"),
        Some(Value::String("t".to_owned()))
    );
    assert_eq!(property("dlq.origin.offset"), Some(Value::I64(1)));
    // As `message get` takes them.
    assert_eq!(property("dlq.origin.queue"), Some(Value::I64(0)));
    let Some(Value::String(id)) = property("dlq.origin.id") else {
        panic!("no id");
    };
    let found = sandbox.tidegate.ok(["message", "get", "t", &id]);
    assert!(found.contains("poison"), "{found}");
    assert_eq!(property("dlq.attempts"), Some(Value::I64(2)));
    assert_eq!(
        property("dlq.reason"),
        Some(Value::String("attempts".to_owned()))
    );
    ack(&client, &letters, &[letter]).await;

    let info = client.topic(&crate::sdk::topic("%DLQ%g")).await.unwrap();
    let mut all = Vec::new();
    for index in 0..info.queues.len() {
        let index = u32::try_from(index).unwrap();
        all.append(&mut read_queue(&client, &source("%DLQ%g"), index).await);
    }
    assert_eq!(bodies(&all), ["poison"]);
    let printed = sandbox
        .tidegate
        .ok(["consume", "%DLQ%g", "--format", "raw"]);
    let forged = sandbox
        .tidegate
        .run_with_input(["publish", "%DLQ%g"], b"{\"body\":1}\n");
    let code = tidegate_model::code::DEAD_LETTER_READ_ONLY.to_string();
    assert!(
        forged.code == 1 && forged.stderr.contains(&code),
        "{forged:#?}"
    );
    assert_eq!(printed, "poison\n");
    assert!(is_done(&client, "g", "t").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_never_copied_into_a_topic_that_it_came_from() {
    let sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 1).await;
    // Each consumes what the other gave up, and its own: three ways round.
    for group in ["a", "b"] {
        create_group(&client, group, 1, Duration::ZERO).await;
    }
    publish_bodies(&client, "t", ["one", "two"]).await;
    for (group, topic) in [
        ("a", "t"),
        ("a", "%DLQ%a"),
        ("b", "%DLQ%a"),
        ("a", "%DLQ%b"),
    ] {
        let mut member = soon("a member", client.consumer(&membership(group, topic)))
            .await
            .unwrap();
        for _ in 0..2 {
            let letter = soon("a message", member.next()).await.unwrap();
            member.nack(&letter.handle, None).await.unwrap();
        }
        soon("settling", member.close()).await.unwrap();
        soon("the group to be done", async {
            while !is_done(&client, group, topic).await {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    for (topic, count) in [("%DLQ%a", 2), ("%DLQ%b", 2)] {
        assert_eq!(
            read_queue(&client, &source(topic), 0).await.len(),
            count,
            "{topic}"
        );
    }
}
