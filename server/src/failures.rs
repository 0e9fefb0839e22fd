//! The last failures of each plugin, for whoever looks for the cause.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidegate_model::{Code, MessageId, Offset, QueueId, Timestamp};
use tidegate_runtime::PluginDigest;

/// Failures kept of one component.
pub(crate) const FAILURES_MAX: usize = 16;
/// Components of which failures are kept; beyond it the one that failed longest ago is forgotten.
const COMPONENTS_MAX: usize = 1024;

/// A message that a plugin failed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) at: Timestamp,
    pub(crate) code: Code,
    /// What the plugin or the engine said, bounded and escaped.
    pub(crate) message: String,
    pub(crate) queue: QueueId,
    pub(crate) offset: Offset,
    pub(crate) message_id: MessageId,
}

/// The last failures by component, in memory alone: a restart begins with none.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<HashMap<PluginDigest, VecDeque<Failure>>>);

impl Failures {
    pub(crate) fn note(&self, digest: PluginDigest, failure: Failure) {
        let mut failures = self.lock();
        if failures.len() >= COMPONENTS_MAX && !failures.contains_key(&digest) {
            let last = |kept: &VecDeque<Failure>| kept.back().map(|failure| failure.at);
            let oldest = failures.iter().min_by_key(|(_, kept)| last(kept));
            let oldest = oldest.map(|(digest, _)| *digest);
            oldest.and_then(|digest| failures.remove(&digest));
        }
        let kept = failures.entry(digest).or_default();
        if kept.len() >= FAILURES_MAX {
            kept.pop_front();
        }
        kept.push_back(failure);
    }

    /// Those of one component, the newest first.
    pub(crate) fn of(&self, digest: PluginDigest) -> Vec<Failure> {
        let failures = self.lock();
        let kept = failures.get(&digest);
        kept.map_or_else(Vec::new, |kept| kept.iter().rev().cloned().collect())
    }

    /// What was said of one message.
    pub(crate) fn words(&self, queue: QueueId, offset: Offset) -> Option<String> {
        let failures = self.lock();
        let mut kept = failures.values().flat_map(|kept| kept.iter().rev());
        let found = kept.find(|it| it.queue == queue && it.offset == offset)?;
        Some(found.message.clone())
    }

    pub(crate) fn forget(&self, digest: PluginDigest) {
        self.lock().remove(&digest);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PluginDigest, VecDeque<Failure>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::code;

    use super::*;

    fn failure(at: u64) -> Failure {
        Failure {
            at: Timestamp(i64::try_from(at).unwrap()),
            code: code::PLUGIN_TRAP,
            message: format!("at {at}"),
            queue: QueueId(1),
            offset: Offset(at),
            message_id: MessageId::default(),
        }
    }

    #[test]
    fn the_newest_are_kept_of_so_many_components() {
        let failures = Failures::default();
        let digest = |n: usize| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_le_bytes());
            PluginDigest(digest)
        };
        for at in 0..40 {
            failures.note(digest(0), failure(at));
        }
        let kept = failures.of(digest(0));
        assert_eq!(kept.len(), FAILURES_MAX);
        assert_eq!((kept[0].offset, kept[15].offset), (Offset(39), Offset(24)));
        let words = |offset| failures.words(QueueId(1), Offset(offset));
        assert_eq!(words(30).as_deref(), Some("at 30"));
        assert_eq!(words(3), None);
        for n in 1..=COMPONENTS_MAX {
            failures.note(digest(n), failure(100));
        }
        assert!(failures.of(digest(0)).is_empty());
        assert_eq!(failures.lock().len(), COMPONENTS_MAX);
        failures.forget(digest(7));
        assert!(failures.of(digest(7)).is_empty());
    }
}
