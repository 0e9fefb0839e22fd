//! Producers and consumers that go on whatever happens to the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_client::{Client, Consumer, Error, ProducerOptions, Received, Settled};
use tidegate_model::{Message, QueueId};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::check::{History, Id};
use super::{GROUP, TOPIC};
use crate::sdk::{membership, soon, topic};

/// How one producer publishes.
#[derive(Clone, Copy)]
struct Kind {
    single: bool,
    keyed: bool,
    /// Messages sent before the first outcome is waited for.
    window: u64,
}

const KINDS: [Kind; 4] = [
    Kind {
        single: false,
        keyed: false,
        window: 200,
    },
    Kind {
        single: false,
        keyed: true,
        window: 100,
    },
    Kind {
        single: true,
        keyed: false,
        window: 10,
    },
    Kind {
        single: true,
        keyed: true,
        window: 1,
    },
];
/// Keys of a keyed producer.
const KEYS: u64 = 16;
/// Messages that a member settles together, about.
const SETTLED_TOGETHER: usize = 100;
/// One message in so many of a queue isn't acknowledged at first.
const FAILS_EVERY: u64 = 37;

/// Producers at work.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    pub(super) async fn start(client: &Client, history: &Arc<History>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for (producer, kind) in KINDS.into_iter().enumerate() {
            let id = u8::try_from(producer).expect("there are four");
            let publishing = publish(client.clone(), kind, id, Arc::clone(history), stop.clone());
            tasks.push(tokio::spawn(publishing));
        }
        Self { stop, tasks }
    }

    /// Lets every producer wait for its last outcomes.
    pub(super) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

async fn publish(
    client: Client,
    kind: Kind,
    producer: u8,
    history: Arc<History>,
    stop: Arc<AtomicBool>,
) {
    let mut options = ProducerOptions::default();
    if kind.single {
        options.linger = Duration::ZERO;
        options.batch_bytes = 1;
    }
    let opened = client.producer(&topic(TOPIC), options).await.unwrap();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut pending = Vec::new();
        for _ in 0..kind.window {
            let id = Id { producer, number };
            number += 1;
            let mut message = Message::new(id.body());
            if kind.keyed {
                message = message.key((number % KEYS).to_le_bytes());
            }
            history.sending(id);
            match opened.send(message).await {
                Ok(sent) => pending.push((id, sent)),
                Err(error) => history.violation(format!("{id:?} was not sent: {error}")),
            }
        }
        for (id, sent) in pending {
            match sent.await {
                Ok(sent) => history.acknowledged(id, (sent.queue_index, sent.offset.0)),
                // It is idempotent and sends again by itself: no death of the broker is its end.
                Err(error) => history.violation(format!("{id:?} has no outcome: {error}")),
            }
        }
    }
}

/// A member of the group that settles all it gets; gone when dropped.
pub(super) struct Member {
    task: JoinHandle<()>,
}

impl Member {
    pub(super) async fn join(client: &Client, history: &Arc<History>, name: &str) -> Self {
        let options = membership(GROUP, TOPIC);
        let consumer = soon("a member", client.consumer(&options)).await.unwrap();
        let info = soon("the topic", client.topic(&topic(TOPIC)))
            .await
            .unwrap();
        let queues = info.queues.iter().map(|queue| queue.queue).collect();
        // A veteran has messages in its hands that an earlier broker gave it; a newcomer hasn't.
        let since = history.life();
        let work = consume(
            consumer,
            queues,
            Arc::clone(history),
            since,
            name.to_owned(),
        );
        Self {
            task: tokio::spawn(work),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn consume(
    mut consumer: Consumer,
    queues: Vec<QueueId>,
    history: Arc<History>,
    since: u32,
    name: String,
) {
    loop {
        let mut batch = match consumer.next_batch().await {
            Ok(batch) => batch,
            Err(error) => return history.violation(format!("{name} was ended: {error}")),
        };
        // What else is there already is settled with it: each settlement waits for a sync.
        while batch.len() < SETTLED_TOGETHER {
            match timeout(Duration::ZERO, consumer.next_batch()).await {
                Ok(Ok(more)) => batch.extend(more),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        for received in &batch {
            history.delivered(&name, since, place(received), body(received));
        }
        let (failed, done): (Vec<_>, Vec<_>) = batch.into_iter().partition(fails);
        match settle(&consumer, &failed, &done).await {
            Ok(settled) => {
                for received in &done {
                    if is_settled(received, &settled, &queues) {
                        history.settled(body(received));
                    }
                }
            }
            Err(error) => return history.violation(format!("{name} can't settle: {error}")),
        }
    }
}

fn body(received: &Received) -> &[u8] {
    received.message.body.as_deref().unwrap_or_default()
}

fn place(received: &Received) -> (u32, u64) {
    (received.queue_index, received.offset.0)
}

/// Some messages fail when they come for the first time, and are parked for their second.
fn fails(received: &Received) -> bool {
    received.attempt == 1 && received.offset.0.is_multiple_of(FAILS_EVERY)
}

async fn settle(
    consumer: &Consumer,
    failed: &[Received],
    done: &[Received],
) -> Result<Settled, Error> {
    for received in failed {
        consumer.nack(&received.handle, None).await?;
    }
    let handles: Vec<_> = done
        .iter()
        .map(|received| received.handle.clone())
        .collect();
    consumer.ack_many(&handles).await?;
    consumer.settle().await
}

/// Whether a message isn't among those that were refused.
fn is_settled(received: &Received, settled: &Settled, queues: &[QueueId]) -> bool {
    let queue = queues[received.queue_index as usize];
    settled.refused.len() < Settled::REFUSED_MAX
        && !settled.refused.iter().any(|refused| {
            refused.queue == queue && (refused.from..refused.to).contains(&received.offset)
        })
}
