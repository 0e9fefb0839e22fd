//! Raising the start of queues.

use tidegate_model::{ShardId, Timestamp};

use super::Appender;
use crate::batch::{Appended, Batch, Kind};
use crate::error::AppendError;
use crate::trim::{self, QUEUE_REMOVED, TrimError, TrimRow};

impl Appender {
    /// Appends a trim of queues of `shard`: durable and applied like any batch, by
    /// [`Appender::settle`]. Readers find nothing below the new starts from then on; the space
    /// comes back in the background once both snapshot generations are past it.
    ///
    /// `rows` rise by queue, at most [`crate::TRIM_ROWS_MAX`] of them. Rows for queues that the
    /// log doesn't hold, and rows that would lower a start, change nothing.
    ///
    /// # Errors
    /// As [`Appender::append`]; also [`AppendError::BadTrim`] for rows that are out of order, none or
    /// too many, and [`AppendError::TrimAhead`] for a start beyond what is durable.
    pub fn trim(
        &mut self,
        shard: ShardId,
        now: Timestamp,
        rows: &[TrimRow],
    ) -> Result<Appended, AppendError> {
        let section = trim::encode(rows)?;
        let term = self.tails.get(shard.0 as usize).map(|tail| tail.0);
        let batch = Batch::control(Kind::Trim, shard, term.unwrap_or_default(), now, &section);
        Ok(self.append(&[batch])?[0])
    }

    /// A batch of kind [`Kind::Trim`] must hold rows that may be applied.
    pub(super) fn check_trims(&self, batch: &Batch<'_>) -> Result<(), AppendError> {
        for row in trims_of(batch)? {
            let next = self.shared.index.bounds(row.queue).next;
            if row.start != QUEUE_REMOVED && row.start > next {
                return Err(AppendError::TrimAhead {
                    queue: row.queue,
                    start: row.start,
                    next,
                });
            }
        }
        Ok(())
    }
}

/// The rows of a trim record; none of any other batch.
pub(super) fn trims_of(batch: &Batch<'_>) -> Result<Vec<TrimRow>, TrimError> {
    match batch.kind {
        Kind::Trim => trim::decode(batch.section),
        _ => Ok(Vec::new()),
    }
}
