//! Reading a topic or view as it is stored, without a group.

use std::time::Duration;

use tidegate_client::{Client, Gap, Received, Source, StartAt};
use tidegate_model::{Offset, code};

use crate::failure::{Failure, Result};

/// Messages that one request asks for at most.
const READ_MAX: u32 = 1024;
/// Between two looks for more at the end of all queues.
const PAUSE: Duration = Duration::from_millis(200);

struct Queue {
    index: u32,
    from: StartAt,
    /// Nothing more was there at the last look.
    at_end: bool,
}

/// What is next in one queue, by rising offset.
#[derive(Default)]
pub(super) struct Step {
    pub(super) queue: u32,
    pub(super) messages: Vec<Received>,
    /// Where messages are damaged.
    pub(super) gaps: Vec<Gap>,
}

impl Step {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.gaps.is_empty()
    }
}

/// Goes round the queues, one request at a time.
pub(crate) struct Reader {
    queues: Vec<Queue>,
    turn: usize,
}

impl Reader {
    /// Of all queues, or one.
    pub(crate) async fn open(
        client: &Client,
        source: &Source,
        only: Option<u32>,
        from: StartAt,
    ) -> Result<Self> {
        let topic = client.topic(source.topic()).await?;
        let count = u32::try_from(topic.queues.len()).unwrap_or(u32::MAX);
        let indexes = match only {
            None => 0..count,
            Some(queue) if queue < count => queue..queue + 1,
            Some(queue) => {
                let last = count.saturating_sub(1);
                return Err(Failure::new(
                    code::QUEUE_NOT_FOUND,
                    format!(
                        "topic {} has queues 0 to {last}, but no {queue}",
                        topic.topic
                    ),
                )
                .hint(format!("tidegate topic info {}", topic.topic.topic)));
            }
        };
        let queues = indexes.map(|index| Queue {
            index,
            from: from_here(from, index, &topic.queues),
            at_end: false,
        });
        Ok(Self {
            queues: queues.collect(),
            turn: 0,
        })
    }

    /// What the next queue in turn has; nothing if it has no more now.
    ///
    /// A call that is dropped is made again.
    pub(crate) async fn next(
        &mut self,
        client: &Client,
        source: &Source,
        left: Option<u64>,
    ) -> Result<Step> {
        let at = self.turn % self.queues.len();
        let queue = &mut self.queues[at];
        let max = left.map_or(READ_MAX, |left| {
            u32::try_from(left).unwrap_or(READ_MAX).min(READ_MAX)
        });
        let read = client.read(source, queue.index, queue.from, max).await?;
        queue.from = StartAt::Offset(read.resume);
        queue.at_end = read.resume >= read.next;
        self.turn = at + 1;
        Ok(Step {
            queue: queue.index,
            messages: read.messages,
            gaps: read.gaps,
        })
    }

    /// Whether no queue had more at its last look.
    pub(crate) fn is_at_end(&self) -> bool {
        self.queues.iter().all(|queue| queue.at_end)
    }

    /// Lets some time pass.
    pub(crate) async fn pause(&self) {
        tokio::time::sleep(PAUSE).await;
    }
}

/// `latest` means the end as it is now, in every queue: what comes while reading is shown.
/// An offset that a queue doesn't reach, or no longer holds, means the nearest that it has.
fn from_here(from: StartAt, index: u32, queues: &[tidegate_client::QueueInfo]) -> StartAt {
    let Some(queue) = queues.get(index as usize) else {
        return from;
    };
    match from {
        StartAt::Latest => StartAt::Offset(queue.next),
        StartAt::Offset(Offset(offset)) => {
            StartAt::Offset(Offset(offset.clamp(queue.start.0, queue.next.0)))
        }
        StartAt::Earliest | StartAt::Time(_) => from,
    }
}
