//! Counting what queues store: compaction takes bytes off their counts without a trim, and a crash
//! may lose that.

use std::sync::Arc;

use tidegate_model::QueueId;

use crate::error::ReadError;
use crate::id_map::QueueMap;
use crate::index::{Index, IndexState};
use crate::sync::{read, write};

/// Tries to count while segments change.
const RECOUNTS_MAX: u32 = 8;
/// Queues whose count is set under one lock, for which the owner may wait.
const RECOUNTED_MAX: usize = 1024;

impl IndexState {
    /// Sets the stored bytes of a queue's batches.
    pub(super) fn set_bytes(&mut self, queue: QueueId, bytes: u64) {
        if let Some(state) = self.queues.get_mut(queue) {
            let others = self.live_bytes.saturating_sub(state.bytes);
            self.live_bytes = others.saturating_add(bytes);
            state.bytes = bytes;
        }
    }
}

impl Index {
    /// Counts the stored bytes of queues anew: a crash may have lost what compaction took off. What
    /// can't be counted stays as it is.
    pub(crate) fn recount(&self, queues: &[QueueId]) {
        for _ in 0..RECOUNTS_MAX {
            match self.try_recount(queues) {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "stored bytes can't be counted anew");
                    return;
                }
            }
        }
    }

    /// `false` if a segment was added, rewritten or removed meanwhile.
    fn try_recount(&self, queues: &[QueueId]) -> Result<bool, ReadError> {
        let start = |queue: &QueueId| Some((*queue, (self.queue_state(*queue)?.start, 0)));
        let sealed: Vec<_> = read(&self.state).sealed.values().cloned().collect();
        let counted = self.undisturbed(|| {
            let mut counted: QueueMap<(u64, u64)> = queues.iter().filter_map(start).collect();
            for sealed in &sealed {
                for (queue, run) in self.open(sealed)?.runs_from(QueueId(0)) {
                    if let Some((start, bytes)) = counted.get_mut(&queue) {
                        *bytes += run.stored_bytes(*start);
                    }
                }
            }
            Ok(counted)
        })?;
        for queues in queues.chunks(RECOUNTED_MAX) {
            let mut state = write(&self.state);
            let pairs = state.sealed.values().zip(&sealed);
            let is_same = pairs.fold(true, |same, (a, b)| same && Arc::ptr_eq(a, b));
            if state.sealed.len() != sealed.len() || !is_same {
                return Ok(false);
            }
            for queue in queues {
                let now = state.queues.get(*queue).map(|queue| queue.start);
                match counted.get(queue) {
                    // One that was trimmed meanwhile is left.
                    Some((start, bytes)) if now == Some(*start) => {
                        let newest = state.newest.run(*queue);
                        let newest = newest.map_or(0, |run| run.stored_bytes(*start));
                        state.set_bytes(*queue, bytes + newest);
                    }
                    _ => {}
                }
            }
        }
        Ok(true)
    }
}
