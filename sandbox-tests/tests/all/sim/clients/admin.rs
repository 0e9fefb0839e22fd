//! Administrators: topics and groups that come and go.

use tidegate_broker::Request;
use tidegate_broker::request::{CreateGroup, CreateTopic, OneTopic, RetryPolicy};
use tidegate_model::{Keep, TopicChange, code};

use super::{Clients, group_ref, topic_ref};
use crate::sim::check::Finding;
use crate::sim::facts::{CURSORS, Fact, GROUPS, Said, TIMED_MS, Topic};

impl Clients<'_> {
    /// Makes what there is none of, and finds what there must be.
    pub(crate) fn set_up(&mut self) -> Result<(), Finding> {
        for topic in Topic::LASTING {
            let was_there = self.facts.is_there(topic);
            let made = self.make(topic)?;
            if made && was_there {
                return Err(Finding::Lost(format!("topic {topic:?}")));
            }
        }
        for (group, max_attempts) in (0..).zip(GROUPS) {
            let create = CreateGroup {
                group: group_ref(group),
                policy: RetryPolicy {
                    max_attempts,
                    backoff_ms: vec![30, 60],
                },
            };
            let made = self.ask(Request::CreateGroup(create))?;
            if made.is_ok() && self.facts.groups.contains(&group) {
                return Err(Finding::Lost(format!("group {group}")));
            }
            if !self.facts.groups.contains(&group) {
                self.learn(Fact::GroupMade(group));
            }
        }
        for (group, topic) in CURSORS {
            self.join(group, topic)?;
        }
        Ok(())
    }

    /// Whether it wasn't there.
    pub(crate) fn make(&mut self, topic: Topic) -> Result<bool, Finding> {
        if !self.facts.made.contains_key(&topic) {
            self.learn(Fact::Made(topic, Said::Asked));
        }
        let create = CreateTopic {
            topic: topic_ref(topic),
            queues: topic.queues(),
            settings: TopicChange {
                retain_ms: (topic == Topic::Timed).then_some(Keep::UpTo(TIMED_MS)),
                retain_consumed: Some(topic == Topic::Work),
                ..TopicChange::default()
            },
        };
        match self.ask(Request::CreateTopic(create))? {
            Ok(_) => {
                self.learn(Fact::Made(topic, Said::Done));
                Ok(true)
            }
            Err(refusal) if refusal.code == code::TOPIC_EXISTS => {
                self.learn(Fact::Made(topic, Said::Done));
                Ok(false)
            }
            Err(refusal) => Err(Finding::Refused(refusal.to_string())),
        }
    }

    pub(crate) fn remove(&mut self, topic: Topic) -> Result<(), Finding> {
        self.learn(Fact::Removed(topic, Said::Asked));
        let remove = OneTopic {
            topic: topic_ref(topic),
        };
        match self.ask(Request::DeleteTopic(remove))? {
            Err(refusal) if refusal.code != code::TOPIC_NOT_FOUND => {
                return Err(Finding::Refused(refusal.to_string()));
            }
            _ => self.learn(Fact::Removed(topic, Said::Done)),
        }
        Ok(())
    }
}
