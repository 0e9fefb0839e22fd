//! A node's start, end and health.

use std::collections::BTreeMap;

use std::time::Duration;

use tidegate_client::{Producer, ProducerOptions, Sent};
use tidegate_model::{Message, code};
use tokio::sync::mpsc;

use crate::sandbox::Sandbox;
use crate::sdk::{create_group, create_topic, membership, read_queue, soon, source, topic};

/// How long a client may go on waiting for a server that was killed: it asks after a second and waits two;
/// the rest is for a slow machine. The carrier itself would wait 30 s and more.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);

/// Messages that a stopping node has surely acknowledged some of, and not others.
const UNDER_WAY: usize = 256;

#[test]
fn health_and_metrics_answer() {
    let mut sandbox = Sandbox::start();
    let broker = sandbox.broker();
    assert_eq!(broker.http_get("/livez").0, 200);
    let (status, ready) = broker.http_get("/readyz");
    assert_eq!(status, 200);
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    assert_eq!(ready["ready"], true);
    let (status, metrics) = broker.http_get("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.contains("# TYPE tidegate_"), "{metrics}");
    assert_eq!(broker.http_get("/nothing-here").0, 404);
}

/// Publishes numbers, and tells which were acknowledged, until nobody listens.
async fn publish_for_ever(producer: Producer, acknowledged: mpsc::UnboundedSender<(u64, Sent)>) {
    let mut next = 0_u64;
    while !acknowledged.is_closed() {
        let mut pending = Vec::new();
        for _ in 0..UNDER_WAY {
            let Ok(sent) = producer.send(Message::new(next.to_string())).await else {
                return;
            };
            pending.push((next, sent));
            next += 1;
        }
        for (number, sent) in pending {
            let Ok(sent) = sent.await else { return };
            // Whoever listens has heard enough if this is lost.
            let _heard = acknowledged.send((number, sent));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_asked_to_stop_loses_nothing() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 4).await;
    let producer = client
        .producer(&topic("t"), ProducerOptions::default())
        .await
        .unwrap();
    let (to, mut from) = mpsc::unbounded_channel();
    let publishing = tokio::spawn(publish_for_ever(producer, to));
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 4 * UNDER_WAY {
        acknowledged.push(soon("an acknowledgement", from.recv()).await.unwrap());
    }
    let stopped = sandbox.stop();
    assert_eq!(stopped.code, 0, "{stopped:#?}");
    publishing.abort();
    drop(publishing.await);
    while let Ok(outcome) = from.try_recv() {
        acknowledged.push(outcome);
    }
    drop(client);

    sandbox.start_again();
    let client = sandbox.client().await;
    let mut stored = BTreeMap::new();
    for queue in 0..4 {
        for received in read_queue(&client, &source("t"), queue).await {
            let body = String::from_utf8(received.message.body.unwrap()).unwrap();
            stored.insert((queue, received.offset), body);
        }
    }
    for (number, sent) in acknowledged {
        let found = stored.get(&(sent.queue_index, sent.offset));
        assert_eq!(found, Some(&number.to_string()), "{sent:?}");
    }
    soon("closing", client.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_notices_that_its_server_was_killed() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 1).await;
    create_group(&client, "g", 3, Duration::from_millis(10)).await;
    let options = membership("g", "t");
    let mut waiting = Box::pin(client.receive(&options, 1, Duration::from_secs(60)));
    let mut consumer = tokio::select! {
        biased;
        answer = &mut waiting => panic!("{answer:?}"),
        consumer = soon("a member", client.consumer(&options)) => consumer.unwrap(),
    };
    sandbox.kill();
    let answer = tokio::time::timeout(NOTICED_WITHIN, waiting).await;
    let refused = answer.expect("it noticed in time").unwrap_err();
    assert_eq!(refused.code, code::UNREACHABLE, "{refused}");

    // The subscription lives on once there is a server again.
    sandbox.start_again();
    let sent = crate::sdk::publish_bodies(&client, "t", ["after"]).await;
    let received = soon("a message", consumer.next()).await.unwrap();
    assert_eq!(received.offset, sent[0].offset);
    soon("closing", client.close()).await;
}

/// Waits until a broker says that it remembers so many pairs of a producer and a queue.
async fn until_remembered(sandbox: &mut Sandbox, pairs: u32) {
    let line = format!("tidegate_remembered_producers {pairs}");
    soon(&line, async {
        while !sandbox
            .broker()
            .http_get("/metrics")
            .1
            .lines()
            .any(|l| l == line)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_producer_is_not_remembered_until_the_log_is_replayed() {
    let mut sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, "t", 1).await;
    let producer = client
        .producer(&topic("t"), ProducerOptions::default())
        .await
        .unwrap();
    for body in ["a", "b"] {
        let sent = producer.send(Message::new(body)).await.unwrap();
        soon("the answer", sent).await.unwrap();
    }
    until_remembered(&mut sandbox, 1).await;
    soon("closing", producer.close()).await.unwrap();
    until_remembered(&mut sandbox, 0).await;
    drop(client);
    sandbox.kill();
    sandbox.start_again();
    until_remembered(&mut sandbox, 1).await;
}
