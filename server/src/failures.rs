//! The last failures of each plugin, for whoever looks for the cause.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidegate_broker::PluginRef;
use tidegate_model::{Code, MessageId, Offset, QueueId, Timestamp};

/// Failures kept of one plugin version.
pub(crate) const FAILURES_MAX: usize = 16;
/// Plugin versions of which failures are kept; beyond it the one that failed longest ago is forgotten.
const PLUGINS_MAX: usize = 1024;

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

/// The last failures by plugin version, in memory alone: a restart begins with none.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<HashMap<PluginRef, VecDeque<Failure>>>);

impl Failures {
    pub(crate) fn note(&self, plugin: &PluginRef, failure: Failure) {
        let mut failures = self.lock();
        if failures.len() >= PLUGINS_MAX && !failures.contains_key(plugin) {
            let last = |kept: &VecDeque<Failure>| kept.back().map(|failure| failure.at);
            let oldest = failures.iter().min_by_key(|(_, kept)| last(kept));
            let oldest = oldest.map(|(plugin, _)| plugin.clone());
            oldest.and_then(|plugin| failures.remove(&plugin));
        }
        let kept = failures.entry(plugin.clone()).or_default();
        if kept.len() >= FAILURES_MAX {
            kept.pop_front();
        }
        kept.push_back(failure);
    }

    /// Those of one plugin version, the newest first.
    pub(crate) fn of(&self, plugin: &PluginRef) -> Vec<Failure> {
        let failures = self.lock();
        let kept = failures.get(plugin);
        kept.map_or_else(Vec::new, |kept| kept.iter().rev().cloned().collect())
    }

    /// What was said of one message.
    pub(crate) fn words(&self, queue: QueueId, offset: Offset, code: Code) -> Option<String> {
        let failures = self.lock();
        let mut kept = failures.values().flat_map(|kept| kept.iter().rev());
        let found = kept.find(|it| it.queue == queue && it.offset == offset && it.code == code)?;
        Some(found.message.clone())
    }

    pub(crate) fn forget(&self, plugin: &PluginRef) {
        self.lock().remove(plugin);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PluginRef, VecDeque<Failure>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_model::{Name, code};

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
        let plugin = |n: usize| PluginRef {
            namespace: Name::default_namespace(),
            plugin: format!("p{n}").parse().unwrap(),
            version: "1".parse().unwrap(),
        };
        for at in 0..40 {
            failures.note(&plugin(0), failure(at));
        }
        let kept = failures.of(&plugin(0));
        assert_eq!(kept.len(), FAILURES_MAX);
        assert_eq!((kept[0].offset, kept[15].offset), (Offset(39), Offset(24)));
        let words = |offset| failures.words(QueueId(1), Offset(offset), code::PLUGIN_TRAP);
        assert_eq!(words(30).as_deref(), Some("at 30"));
        assert_eq!(words(3), None);
        for n in 1..=PLUGINS_MAX {
            failures.note(&plugin(n), failure(100));
        }
        assert!(failures.of(&plugin(0)).is_empty());
        assert_eq!(failures.lock().len(), PLUGINS_MAX);
        failures.forget(&plugin(7));
        assert!(failures.of(&plugin(7)).is_empty());
    }
}
