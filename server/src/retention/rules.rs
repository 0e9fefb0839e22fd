//! The rules of all topics, as one table of queues.

use std::hash::{DefaultHasher, Hash, Hasher};

use tidegate_broker::core::RulesPage;
use tidegate_model::{Keep, QueueId, Timestamp};
use tidegate_store::{CompactedRun, Rule};

use super::age;

/// Which queues keep messages for how long. A million queues of a few topics are a few rows.
#[derive(Default)]
pub(super) struct RuleTable {
    /// By rising queue once finished.
    runs: Vec<Run>,
    /// Queues that keep the newest message of each key.
    compacted: Vec<CompactedRun>,
    /// Topics whose queues are asked one by one.
    looked_at: Vec<LookedAt>,
    /// Queues up to this one were given to topics when the first page was made.
    last_queue: Option<QueueId>,
    shortest_ms: Option<u64>,
    fingerprint: u64,
}

/// Queues of one topic whose ids follow one another.
#[derive(Clone, Copy, Hash)]
struct Run {
    first: u64,
    /// One past the last.
    end: u64,
    /// `None` keeps messages whatever their age.
    retain_ms: Option<u64>,
}

/// A topic with a bound on its size, or from which messages go once they are consumed.
pub(super) struct LookedAt {
    pub(super) queues: Vec<QueueId>,
    pub(super) max_bytes: Option<u64>,
    pub(super) consumed: bool,
}

impl RuleTable {
    /// Takes in a page; the pages come in order.
    pub(super) fn add(&mut self, page: RulesPage) {
        self.last_queue.get_or_insert(page.last_queue);
        for topic in page.topics {
            let settings = topic.settings;
            let retain_ms = match settings.retain_ms {
                Keep::UpTo(ms) => Some(ms),
                Keep::All => None,
            };
            if let Some(ms) = retain_ms {
                self.shortest_ms = Some(self.shortest_ms.map_or(ms, |known| known.min(ms)));
            }
            for queue in &topic.queues {
                match self.runs.last_mut() {
                    Some(run) if run.end == queue.0 && run.retain_ms == retain_ms => run.end += 1,
                    _ => self.runs.push(Run {
                        first: queue.0,
                        end: queue.0 + 1,
                        retain_ms,
                    }),
                }
            }
            if settings.compact {
                let tombstone_ms = match settings.tombstone_ms {
                    Keep::UpTo(ms) => ms,
                    Keep::All => u64::MAX,
                };
                for queue in &topic.queues {
                    match self.compacted.last_mut() {
                        Some(run)
                            if run.last.0 + 1 == queue.0 && run.tombstone_ms == tombstone_ms =>
                        {
                            run.last = *queue;
                        }
                        _ => self.compacted.push(CompactedRun {
                            first: *queue,
                            last: *queue,
                            tombstone_ms,
                        }),
                    }
                }
            }
            let max_bytes = match settings.retain_bytes {
                Keep::UpTo(bytes) => Some(bytes),
                Keep::All => None,
            };
            let consumed = settings.retain_consumed;
            if max_bytes.is_some() || consumed {
                self.looked_at.push(LookedAt {
                    queues: topic.queues,
                    max_bytes,
                    consumed,
                });
            }
        }
    }

    /// All pages are there.
    pub(super) fn finish(&mut self) {
        // Queues of dead letters come after those of later topics.
        self.runs.sort_unstable_by_key(|run| run.first);
        self.compacted.sort_unstable_by_key(|run| run.first);
        let mut hasher = DefaultHasher::new();
        self.runs.hash(&mut hasher);
        self.fingerprint = hasher.finish();
    }

    /// What may go of a queue by its age, at `now`; all of it if its topic is gone.
    pub(super) fn rule(&self, queue: QueueId, now: Timestamp) -> Option<Rule> {
        let after = self.runs.partition_point(|run| run.first <= queue.0);
        let run = after.checked_sub(1).map(|at| self.runs[at]);
        match run.filter(|run| queue.0 < run.end) {
            Some(run) => run.retain_ms.map(|ms| Rule {
                before: Some(age(now, ms)),
                ..Rule::default()
            }),
            // One given since the first page was made isn't here yet.
            None => self
                .last_queue
                .is_some_and(|last| queue <= last)
                .then_some(Rule {
                    remove: true,
                    ..Rule::default()
                }),
        }
    }

    /// Queues that keep the newest message of each key.
    pub(super) fn compacted(&self) -> &[CompactedRun] {
        &self.compacted
    }

    pub(super) fn looked_at(&self) -> &[LookedAt] {
        &self.looked_at
    }

    pub(super) fn any_consumed(&self) -> bool {
        self.looked_at.iter().any(|topic| topic.consumed)
    }

    /// The shortest time for which any topic keeps messages, in ms.
    pub(super) fn shortest_ms(&self) -> Option<u64> {
        self.shortest_ms
    }

    /// A number that changes with the rules.
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// The size to which queues of these sizes are to be held, so that together they have at most `max`
/// bytes: the highest possible. `None` if they fit as they are.
pub(super) fn level(sizes: &mut [u64], max: u64) -> Option<u64> {
    sizes.sort_unstable();
    let mut left = max;
    for (at, size) in sizes.iter().enumerate() {
        let share = left / (sizes.len() - at) as u64;
        if *size > share {
            return Some(share);
        }
        left -= size;
    }
    None
}

#[cfg(test)]
mod tests {
    use tidegate_broker::core::TopicRules;
    use tidegate_model::{TopicId, TopicSettings};

    use super::*;

    fn topic(id: u64, queues: &[u64], retain_ms: Keep) -> TopicRules {
        TopicRules {
            topic: TopicId(id),
            settings: TopicSettings {
                retain_ms,
                ..TopicSettings::default()
            },
            queues: queues.iter().copied().map(QueueId).collect(),
        }
    }

    fn page(topics: Vec<TopicRules>, last_queue: u64) -> RulesPage {
        RulesPage {
            topics,
            last_queue: QueueId(last_queue),
            next: None,
        }
    }

    #[test]
    fn a_queue_has_its_topics_rule_or_is_gone_or_not_known_yet() {
        let mut table = RuleTable::default();
        let first = vec![
            topic(1, &[1, 2, 9], Keep::UpTo(1_000)),
            topic(2, &[5], Keep::All),
        ];
        table.add(page(first, 9));
        // Made while the pages were read.
        table.add(page(vec![topic(3, &[10, 11], Keep::UpTo(500))], 11));
        table.finish();
        let now = Timestamp(10_000);
        let before = |ms| {
            Some(Rule {
                before: Some(Timestamp(ms)),
                ..Rule::default()
            })
        };
        for queue in [1, 2, 9] {
            assert_eq!(table.rule(QueueId(queue), now), before(9_000), "{queue}");
        }
        assert_eq!(table.rule(QueueId(5), now), None);
        assert_eq!(table.rule(QueueId(10), now), before(9_500));
        let removed = table.rule(QueueId(4), now).unwrap();
        assert!(removed.remove);
        assert_eq!(table.rule(QueueId(12), now), None);
        assert_eq!(table.shortest_ms(), Some(500));
    }

    #[test]
    fn compacted_queues_are_those_of_topics_that_are_set_so() {
        let compact = |id, queues: &[u64], tombstone_ms| {
            let mut rules = topic(id, queues, Keep::All);
            rules.settings.compact = true;
            rules.settings.tombstone_ms = tombstone_ms;
            rules
        };
        let compacted = |topics| {
            let mut table = RuleTable::default();
            table.add(page(topics, 9));
            table.finish();
            let runs = table.compacted().iter();
            runs.map(|run| (run.first.0, run.last.0, run.tombstone_ms))
                .collect::<Vec<_>>()
        };
        // The first grew after the others were made.
        let first = || compact(1, &[1, 2, 9], Keep::UpTo(5));
        let others = || {
            vec![
                topic(2, &[3], Keep::All),
                compact(3, &[4, 5], Keep::UpTo(5)),
                compact(4, &[6, 7], Keep::UpTo(5)),
                compact(5, &[8], Keep::All),
            ]
        };
        let all = [vec![first()], others()].concat();
        let expected = [(1, 2, 5), (4, 7, 5), (8, 8, u64::MAX), (9, 9, 5)];
        assert_eq!(compacted(all), expected);
        // Set off, or removed.
        let off = [vec![topic(1, &[1, 2, 9], Keep::All)], others()].concat();
        assert_eq!(compacted(off), expected[1..3]);
        assert_eq!(compacted(others()), expected[1..3]);
        assert_eq!(compacted(Vec::new()), []);
    }

    #[test]
    fn no_rules_remove_nothing() {
        assert_eq!(RuleTable::default().rule(QueueId(1), Timestamp(0)), None);
    }

    #[test]
    fn the_longest_queues_give_first() {
        for (sizes, max, expected) in [
            (vec![10, 20, 30], 60, None),
            (vec![10, 20, 30], 59, Some(29)),
            (vec![10, 20, 30], 40, Some(15)),
            (vec![30, 30, 30], 30, Some(10)),
            (vec![100, 0, 0, 0], 50, Some(50)),
            (vec![5, 5], 0, Some(0)),
            (vec![], 0, None),
        ] {
            let found = level(&mut sizes.clone(), max);
            assert_eq!(found, expected, "{sizes:?} within {max}");
            let held: u64 = sizes
                .iter()
                .map(|size| *size.min(&found.unwrap_or(u64::MAX)))
                .sum();
            assert!(held <= max);
        }
    }
}
