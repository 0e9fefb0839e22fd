//! What a whole broker keeps in memory.

use std::time::Duration;

use tempfile::TempDir;
use tidegate_client::ProducerOptions;
use tidegate_model::{Message, TopicRef};
use tokio::time::sleep;

use super::BODY;
use super::child::topics;
use crate::machine::private_kib;
use crate::publish::Rig;

/// How long a broker is left alone before its memory at rest is looked at.
const REST: Duration = Duration::from_secs(10);
/// Messages that are published to it, by key to all topics in turn.
const MESSAGES: u64 = 1_000_000;
/// Producers that stay open on a connection; it may have a few more streams than that.
const CONNECTION_PRODUCERS: u64 = 50;
/// Messages sent to a topic before it is another's turn, and before memory is looked at again.
const TURN: u64 = 1000;

/// RssAnon + RssShmem of a broker, in MB.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    /// After its start.
    pub(super) rest: f64,
    /// With producers of which it remembers nothing.
    pub(super) non_idempotent: Published,
    /// With producers whose batches it recognises, each closed when it is done; after those.
    pub(super) closed: Published,
    /// With as many that stay open; after those.
    pub(super) open: Published,
}

/// How producers publish.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    NonIdempotent,
    Closed,
    Open,
}

/// The same, of a broker that is published to.
#[derive(Clone, Copy)]
pub(super) struct Published {
    /// The most that was seen meanwhile.
    pub(super) most: f64,
    /// [`REST`] after that.
    pub(super) later: f64,
}

/// Starts a broker on a filled folder and publishes to its topics.
pub(super) async fn measure(folder: TempDir, queues: u64) -> anyhow::Result<Memory> {
    let rig = Rig::on(folder).await?;
    sleep(REST).await;
    let rest = now(&rig)?;
    let topics = topics(queues)?;
    let non_idempotent = publish(&rig, &topics, Kind::NonIdempotent).await?;
    let closed = publish(&rig, &topics, Kind::Closed).await?;
    let open = publish(&rig, &topics, Kind::Open).await?;
    rig.client.close().await;
    rig.broker.kill();
    Ok(Memory {
        rest,
        non_idempotent,
        closed,
        open,
    })
}

fn now(rig: &Rig) -> anyhow::Result<f64> {
    Ok(private_kib(rig.broker.pid())? as f64 * 1024.0 / 1e6)
}

/// A producer for each turn.
async fn publish(rig: &Rig, topics: &[TopicRef], kind: Kind) -> anyhow::Result<Published> {
    let mut most: f64 = 0.0;
    let (mut client, mut open) = (rig.client.clone(), Vec::new());
    for turn in 0..MESSAGES / TURN {
        let at = usize::try_from(turn)? % topics.len();
        let options = ProducerOptions {
            idempotent: kind != Kind::NonIdempotent,
            ..ProducerOptions::default()
        };
        if kind == Kind::Open && turn % CONNECTION_PRODUCERS == 0 {
            client = rig.connect().await?;
        }
        let producer = client.producer(&topics[at], options).await?;
        let mut sent = Vec::new();
        for number in 0..TURN {
            let message = Message::new(vec![b'x'; BODY]).key(format!("{turn} {number}"));
            sent.push(producer.send(message).await?);
        }
        producer.flush().await?;
        for receipt in sent {
            receipt.await?;
        }
        most = most.max(now(rig)?);
        if kind == Kind::Open {
            open.push(producer);
        } else {
            producer.close().await?;
        }
    }
    sleep(REST).await;
    let later = now(rig)?;
    drop(open);
    Ok(Published { most, later })
}
