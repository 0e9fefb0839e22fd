//! What may go: the rules of topics and how far their groups have come, a page at a time, for
//! whoever looks through the log.

use std::ops::Bound;

use tidegate_model::{Offset, QueueId, TopicId, TopicSettings};

use super::Core;
use crate::id::{CursorId, SourceId};
use crate::limit::RETENTION_PAGE_ROWS;

/// Topics with what they keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesPage {
    /// By rising id.
    pub topics: Vec<TopicRules>,
    /// The highest queue id given to any topic so far. A queue up to it that is on no page of a
    /// pass from the first page on belongs to no topic any more.
    pub last_queue: QueueId,
    /// Where the next page begins: after this topic. `None` on the last page.
    pub next: Option<TopicId>,
}

/// A topic with what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRules {
    /// The topic.
    pub topic: TopicId,
    /// What it keeps.
    pub settings: TopicSettings,
    /// Its queues in index order.
    pub queues: Vec<QueueId>,
}

/// How far cursors have come on topics whose messages go by consumption.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumedPage {
    /// Of each queue of a cursor's topic: all before the offset is done for that cursor. A queue
    /// stands here once per cursor.
    pub rows: Vec<(QueueId, Offset)>,
    /// Where the next page begins: after this cursor. `None` on the last page.
    pub next: Option<CursorId>,
}

impl Core {
    /// Changes whenever a topic, a queue of one, or what one keeps does. Not kept over a restart.
    #[must_use]
    pub fn topics_version(&self) -> u64 {
        self.topics_version
    }

    /// Topics after `after` with what they keep: up to [`RETENTION_PAGE_ROWS`] queues, and those of
    /// one topic more.
    #[must_use]
    pub fn rules_page(&self, after: Option<TopicId>) -> RulesPage {
        let mut page = RulesPage {
            topics: Vec::new(),
            last_queue: QueueId(self.catalog.last.queue),
            next: None,
        };
        let mut queues = 0;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for topic in self.catalog.topics.range((from, Bound::Unbounded)) {
            let (id, topic) = topic;
            if queues >= RETENTION_PAGE_ROWS {
                page.next = page.topics.last().map(|rules| rules.topic);
                break;
            }
            queues += topic.queues.len();
            page.topics.push(TopicRules {
                topic: *id,
                settings: topic.settings,
                queues: topic.queues.clone(),
            });
        }
        page
    }

    /// How far the cursors after `after` have come, where that lets messages go: up to
    /// [`RETENTION_PAGE_ROWS`] cursors looked at or rows, and the rows of one cursor more.
    #[must_use]
    pub fn consumed_page(&self, after: Option<CursorId>) -> ConsumedPage {
        let mut page = ConsumedPage::default();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let cursors = self.catalog.cursors.range((from, Bound::Unbounded));
        let mut last = None;
        for (looked_at, (id, cursor)) in cursors.enumerate() {
            if looked_at >= RETENTION_PAGE_ROWS || page.rows.len() >= RETENTION_PAGE_ROWS {
                page.next = last;
                break;
            }
            last = Some(*id);
            let topic = match cursor.source {
                SourceId::Topic(topic) => Some(topic),
                SourceId::View(view) => self.catalog.views.get(&view).map(|view| view.topic),
            };
            let Some(topic) = topic.and_then(|topic| self.catalog.topics.get(&topic)) else {
                continue;
            };
            if !topic.settings.retain_consumed {
                continue;
            }
            page.rows.extend(
                topic
                    .queues
                    .iter()
                    .map(|queue| (*queue, self.consumed(*id, *queue))),
            );
        }
        page
    }

    /// All before it is done for a cursor: neither parked nor still to come.
    fn consumed(&self, cursor: CursorId, queue: QueueId) -> Offset {
        match self.shard_of(queue).cursor(queue, cursor) {
            Some(state) => Offset(state.consumed()),
            None => self.position(cursor, queue),
        }
    }
}
