//! Short ways to what most tests do with the SDK.

use std::time::Duration;

use tidegate_client::{
    Client, ConsumerOptions, CreateGroup, CreateTopic, GroupRef, ProducerOptions, Received,
    RetryPolicy, Sent, Source, StartAt,
};
use tidegate_model::{Message, Name, Offset, TopicChange, TopicRef};
use tidegate_sandbox_tests::DEADLINE;

/// Messages that one read asks for.
const READ: u32 = 1000;

pub(crate) fn topic(name: &str) -> TopicRef {
    TopicRef {
        namespace: Name::default_namespace(),
        topic: Name::reference(name).unwrap(),
    }
}

pub(crate) fn group(name: &str) -> GroupRef {
    name.parse().unwrap()
}

/// A topic, or a view.
pub(crate) fn source(name: &str) -> Source {
    name.parse().unwrap()
}

/// What `future` gives, unless it takes for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("waited {DEADLINE:?} for {what}"))
}

pub(crate) async fn create_topic(client: &Client, name: &str, queues: u32) {
    let create = CreateTopic {
        topic: topic(name),
        queues,
        settings: TopicChange::default(),
    };
    soon("a topic", client.create_topic(&create)).await.unwrap();
}

/// A group whose messages come again after `backoff`, `attempts` times in all.
pub(crate) async fn create_group(client: &Client, name: &str, attempts: u16, backoff: Duration) {
    let create = CreateGroup {
        group: group(name),
        policy: Some(RetryPolicy {
            max_attempts: attempts,
            backoff_ms: vec![u32::try_from(backoff.as_millis()).unwrap()],
        }),
    };
    soon("a group", client.create_group(&create)).await.unwrap();
}

/// Publishes in order, and waits for every acknowledgement.
pub(crate) async fn publish(
    client: &Client,
    name: &str,
    options: ProducerOptions,
    messages: impl IntoIterator<Item = Message>,
) -> Vec<Sent> {
    soon("publishing", async {
        let producer = client.producer(&topic(name), options).await.unwrap();
        let mut pending = Vec::new();
        for message in messages {
            pending.push(producer.send(message).await.unwrap());
        }
        let mut sent = Vec::new();
        for pending in pending {
            sent.push(pending.await.unwrap());
        }
        producer.close().await.unwrap();
        sent
    })
    .await
}

/// Publishes bodies in order, with default options.
pub(crate) async fn publish_bodies<B: Into<Vec<u8>>>(
    client: &Client,
    name: &str,
    bodies: impl IntoIterator<Item = B>,
) -> Vec<Sent> {
    let messages = bodies.into_iter().map(Message::new);
    publish(client, name, ProducerOptions::default(), messages).await
}

/// What a member of `name` asks for.
pub(crate) fn membership(name: &str, from: &str) -> ConsumerOptions {
    ConsumerOptions::new(group(name), source(from))
}

/// Everything that is stored in one queue, in order.
pub(crate) async fn read_queue(client: &Client, from: &Source, queue_index: u32) -> Vec<Received> {
    soon("reading a queue", async {
        let mut all = Vec::new();
        let mut at = StartAt::Earliest;
        loop {
            let mut read = client.read(from, queue_index, at, READ).await.unwrap();
            all.append(&mut read.messages);
            if read.resume >= read.next {
                return all;
            }
            at = StartAt::Offset(read.resume);
        }
    })
    .await
}

/// Receives until `count` messages are there; nothing is acknowledged.
pub(crate) async fn receive(
    client: &Client,
    options: &ConsumerOptions,
    count: usize,
) -> Vec<Received> {
    soon("messages", async {
        let mut all = Vec::new();
        while all.len() < count {
            let left = u32::try_from(count - all.len()).unwrap();
            let wait = Duration::from_secs(20);
            all.append(&mut client.receive(options, left, wait).await.unwrap());
        }
        all
    })
    .await
}

/// Acknowledges, and sees that every one of them was settled.
pub(crate) async fn ack(client: &Client, options: &ConsumerOptions, received: &[Received]) {
    let handles: Vec<_> = received.iter().map(|r| r.handle.clone()).collect();
    let settled = client.ack(&options.group, &options.source, &handles);
    for (outcome, received) in soon("settling", settled)
        .await
        .unwrap()
        .iter()
        .zip(received)
    {
        assert_eq!(*outcome, Ok(()), "settling {received:?}");
    }
}

/// Bodies as text, in the order given.
pub(crate) fn bodies(received: &[Received]) -> Vec<String> {
    let text = |r: &Received| String::from_utf8(r.message.body.clone().unwrap()).unwrap();
    received.iter().map(text).collect()
}

/// Whether a group has nothing left to do on a source: all is settled.
pub(crate) async fn is_done(client: &Client, name: &str, from: &str) -> bool {
    let info = soon("a group's state", client.group(&group(name)))
        .await
        .unwrap();
    let from = source(from);
    let subscription = info.subscriptions.iter().find(|s| s.source == from);
    subscription.is_some_and(|subscription| {
        subscription
            .queues
            .iter()
            .all(|queue| queue.cursor == queue.next && queue.leased == 0 && queue.parked == 0)
    })
}

pub(crate) fn offset(number: u64) -> StartAt {
    StartAt::Offset(Offset(number))
}
