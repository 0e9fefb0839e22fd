//! A producer whose acknowledgements are counted while it sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_client::{Error, Level, PendingSend, Producer};
use tidegate_model::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::failure::{Failure, Result};
use crate::input::Chunk;

/// Outcomes that wait to be counted; the producer's own limit comes before this one.
const OUTCOMES_WAITING: usize = 4096;

/// What was acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) messages: u64,
    /// Of bodies.
    pub(crate) bytes: u64,
    /// Stored by an earlier attempt.
    pub(crate) duplicates: u64,
    /// The weakest that an acknowledgement named.
    level: Option<Level>,
}

impl Sum {
    pub(crate) fn level_name(&self) -> Option<&'static str> {
        self.level.map(|level| match level {
            Level::Memory => "memory",
            Level::Os => "os",
            Level::Disk => "disk",
            Level::Quorum => "quorum",
        })
    }
}

struct Outcome {
    line: u64,
    bytes: u64,
    pending: PendingSend,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progressed {
    Sent,
    /// An earlier message was refused: [`Sending::finish`] tells why.
    Refused,
}

/// Messages on their way.
pub(crate) struct Sending {
    producer: Producer,
    outcomes: mpsc::Sender<Outcome>,
    counter: JoinHandle<(Sum, Result<()>)>,
    acknowledged: Arc<AtomicU64>,
}

impl Sending {
    pub(crate) fn start(producer: Producer) -> Self {
        let (outcomes, from) = mpsc::channel(OUTCOMES_WAITING);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let counter = tokio::spawn(count(from, acknowledged.clone()));
        Self {
            producer,
            outcomes,
            counter,
            acknowledged,
        }
    }

    /// How many messages are acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Hands messages to the producer; waits while too many are under way.
    pub(crate) async fn send(&mut self, chunk: Chunk) -> Result<Progressed> {
        for (line, message) in chunk {
            let bytes = body_len(&message);
            let pending = self
                .producer
                .send(message)
                .await
                .map_err(|error| at_line(line, error))?;
            let outcome = Outcome {
                line,
                bytes,
                pending,
            };
            if self.outcomes.send(outcome).await.is_err() {
                return Ok(Progressed::Refused);
            }
        }
        Ok(Progressed::Sent)
    }

    /// Waits for every outcome; gives what was acknowledged, and the first failure.
    pub(crate) async fn finish(self) -> (Sum, Result<()>) {
        drop(self.outcomes);
        let closed = self.producer.close().await;
        match self.counter.await {
            Ok((sum, Ok(()))) => (sum, closed.map_err(Failure::from)),
            Ok(failed) => failed,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

fn body_len(message: &Message) -> u64 {
    let len = message.body.as_ref().map_or(0, Vec::len);
    u64::try_from(len).expect("a length fits 64 bits")
}

fn at_line(line: u64, error: Error) -> Failure {
    Failure::from(error).because(format!("the message is that of line {line}"))
}

/// Counts until the sender ends. After a failure it counts on: what was acknowledged is told.
async fn count(
    mut from: mpsc::Receiver<Outcome>,
    acknowledged: Arc<AtomicU64>,
) -> (Sum, Result<()>) {
    let mut sum = Sum::default();
    let mut first_failure = None;
    while let Some(outcome) = from.recv().await {
        match outcome.pending.await {
            Ok(sent) => {
                sum.messages += 1;
                sum.bytes += outcome.bytes;
                sum.duplicates += u64::from(sent.duplicate);
                sum.level = Some(sum.level.map_or(sent.level, |level| level.min(sent.level)));
                acknowledged.store(sum.messages, Ordering::Relaxed);
            }
            Err(error) => {
                // Closed, it takes no more; what waits in it is still counted.
                from.close();
                first_failure.get_or_insert_with(|| at_line(outcome.line, error));
            }
        }
    }
    (sum, first_failure.map_or(Ok(()), Err))
}
