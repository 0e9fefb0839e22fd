//! Raising the start of queues: what retention found, and what removed topics leave behind.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;

use tidegate_model::{Offset, QueueId, ShardId};
use tidegate_store::{AppendError, QUEUE_REMOVED, TRIM_ROWS_MAX, TrimRow, Trims};

use super::Owner;
use super::durable::Pending;
use crate::retention::{Ask, removals};

/// Rows for one trim record that wait to be logged.
pub(super) struct Waiting {
    shard: ShardId,
    rows: Vec<TrimRow>,
    /// Dropped when they are durable.
    done: Option<SyncSender<()>>,
}

/// Trims that wait for room in the log, in order. Those of retention are bounded by the one
/// question that it has open, removals by the queues of the node.
pub(super) type Trimming = VecDeque<Waiting>;

impl Owner {
    /// Answers retention's thread. It may have gone away.
    pub(crate) fn retention_asks(&mut self, ask: Ask) {
        match ask {
            Ask::Rules(answer) => {
                let now = self.clock.now();
                let _ = answer.send((self.core.topics_version(), now));
            }
            Ask::Page(after, answer) => drop(answer.send(self.core.rules_page(after))),
            Ask::Consumed(after, answer) => drop(answer.send(self.core.consumed_page(after))),
            Ask::Trim(trims, done) => self.trim(trims, Some(&done)),
        }
    }

    /// A topic is gone, and with it these queues.
    pub(super) fn remove_queues(&mut self, queues: &[QueueId]) {
        let catalog = self.core.catalog();
        let trims = removals(queues, |queue| catalog.shard_of(queue));
        self.trim(trims, None);
    }

    fn trim(&mut self, trims: Trims, done: Option<&SyncSender<()>>) {
        for (shard, rows) in trims {
            self.state
                .trims
                .extend(rows.chunks(TRIM_ROWS_MAX).map(|rows| Waiting {
                    shard,
                    rows: rows.to_vec(),
                    done: done.cloned(),
                }));
        }
    }

    /// Logs the trims that wait; without room the rest waits on.
    pub(super) fn append_trims(&mut self) {
        while let Some(mut waiting) = self.state.trims.pop_front() {
            // The catalogue may have changed since they were found. It alone says what is removed.
            let catalog = self.core.catalog();
            waiting.rows.retain(|row| {
                let is_removed = catalog.topic_of(row.queue).is_none();
                is_removed == (row.start == QUEUE_REMOVED)
            });
            if waiting.rows.is_empty() {
                continue;
            }
            let now = self.clock.now();
            match self.appender.trim(waiting.shard, now, &waiting.rows) {
                Ok(appended) => {
                    let Waiting { shard, rows, done } = waiting;
                    let trim = Pending::Trim { shard, rows, done };
                    self.state.pending.push_back((appended.end, trim));
                }
                Err(AppendError::Fenced(fenced)) => {
                    self.fenced(&fenced);
                    self.state.trims.clear();
                }
                Err(error @ (AppendError::Full | AppendError::NoSpace)) => {
                    if matches!(error, AppendError::NoSpace) {
                        self.shared.set_disk_full(true);
                    }
                    self.state.trims.push_front(waiting);
                    return;
                }
                Err(error) => {
                    tracing::error!(shard = %waiting.shard, %error, "a trim can't be logged");
                }
            }
        }
    }

    /// A trim is durable.
    pub(super) fn trimmed(&mut self, shard: ShardId, rows: &[TrimRow]) {
        self.mark_dirty(shard);
        let starts: Vec<(QueueId, Offset)> =
            rows.iter().map(|row| (row.queue, row.start)).collect();
        let now = self.clock.now();
        let lost = self
            .core
            .apply_trimmed(now, &starts, &mut self.state.effects);
        self.metrics.expired_messages.inc_by(lost);
        self.metrics
            .trimmed_bytes
            .inc_by(rows.iter().map(|row| row.bytes).sum());
    }
}
