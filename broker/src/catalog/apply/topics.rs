//! Topics: made by users with a number of queues, or by the broker for dead letters.

use tidegate_model::{
    Name, QueueId, ShardId, Timestamp, TopicChange, TopicId, TopicRef, TopicSettings, code, limits,
};

use super::super::refuse::{argument, exists, full, settings_refused, users_name};
use super::super::{Catalog, Group, Topic, no_group, no_topic};
use super::Fallout;
use crate::id::SourceId;
use crate::limit::{QUEUES_MAX, TOPICS_MAX};
use crate::reference::GroupRef;
use crate::refusal::Refusal;

/// The dead-letter topic of a group. Its name fits: a group whose name is too long isn't made.
pub(crate) fn dead_letter_name(group: &Group) -> TopicRef {
    TopicRef {
        namespace: group.name.namespace.clone(),
        topic: Name::dead_letter_topic(&group.name.group).expect("checked when the group was made"),
    }
}

impl Catalog {
    pub(super) fn check_create_topic(
        &self,
        topic: &TopicRef,
        queues: u32,
        settings: &TopicSettings,
    ) -> Result<(), Refusal> {
        users_name("namespace", &topic.namespace)?;
        users_name("topic", &topic.topic)?;
        if queues == 0 || queues > limits::TOPIC_QUEUES_MAX {
            return Err(argument(format!(
                "a topic has 1 to {} queues; {queues} were asked for topic {topic}",
                limits::TOPIC_QUEUES_MAX
            )));
        }
        settings
            .check()
            .map_err(|error| settings_refused(topic, &error))?;
        if self.topic_names.contains_key(topic) {
            return Err(exists(code::TOPIC_EXISTS, "topic", topic));
        }
        self.check_room(queues as usize)
    }

    /// The settings that the topic would have.
    pub(super) fn check_update_topic(
        &self,
        name: &TopicRef,
        change: &TopicChange,
    ) -> Result<TopicSettings, Refusal> {
        let topic = self.topic(name).ok_or_else(|| no_topic(name))?;
        topic
            .settings
            .changed(change)
            .map_err(|error| settings_refused(name, &error))
    }

    pub(super) fn update_topic(&mut self, name: &TopicRef, change: &TopicChange) {
        let settings = self.check_update_topic(name, change).expect("checked");
        let id = self.topic_names[name];
        let topic = self.topics.get_mut(&id).expect("named topics exist");
        topic.settings = settings;
    }

    fn check_room(&self, queues: usize) -> Result<(), Refusal> {
        if self.topics.len() >= TOPICS_MAX {
            return Err(full("topics", TOPICS_MAX));
        }
        if self.queues.len() + queues > QUEUES_MAX {
            return Err(full("queues", QUEUES_MAX));
        }
        Ok(())
    }

    pub(super) fn create_topic(
        &mut self,
        now: Timestamp,
        name: &TopicRef,
        queues: u32,
        settings: TopicSettings,
    ) {
        let id = self.new_topic(now, name, settings);
        for _ in 0..queues {
            self.last.queue += 1;
            self.add_queue(id, QueueId(self.last.queue));
        }
    }

    fn new_topic(&mut self, now: Timestamp, name: &TopicRef, settings: TopicSettings) -> TopicId {
        self.last.topic += 1;
        let id = TopicId(self.last.topic);
        self.topic_names.insert(name.clone(), id);
        self.topics.insert(
            id,
            Topic {
                id,
                name: name.clone(),
                layout_version: 1,
                created: now,
                queues: Vec::new(),
                settings,
            },
        );
        id
    }

    fn add_queue(&mut self, topic: TopicId, queue: QueueId) {
        self.queues.insert(queue, topic);
        let topic = self.topics.get_mut(&topic).expect("just looked up");
        topic.queues.push(queue);
    }

    pub(super) fn check_delete_topic(&self, name: &TopicRef) -> Result<(), Refusal> {
        let topic = self.topic(name).ok_or_else(|| no_topic(name))?;
        match self.views.values().find(|view| view.topic == topic.id) {
            Some(view) => Err(Refusal::new(
                code::IN_USE,
                format!("view {} reads topic {name}", view.name),
            )
            .hint(format!("tidegate view rm {}", view.name))),
            None => Ok(()),
        }
    }

    pub(super) fn delete_topic(&mut self, name: &TopicRef) -> Fallout {
        let id = self.topic_names.remove(name).expect("checked");
        let topic = self.topics.remove(&id).expect("named topics exist");
        for queue in &topic.queues {
            self.queues.remove(*queue);
        }
        for group in self.groups.values_mut() {
            group.bindings.remove(&id);
        }
        Fallout {
            cursors: self
                .drop_cursors(|cursor| cursor.source == SourceId::Topic(id), &topic.queues),
            queues: topic.queues,
            what: format!("topic {name}"),
            ..Fallout::default()
        }
    }

    pub(super) fn check_open_dead_letter(
        &self,
        group: &GroupRef,
        shard: ShardId,
    ) -> Result<(), Refusal> {
        let found = self.group(group).ok_or_else(|| no_group(group))?;
        if shard.0 >= self.shards {
            return Err(argument(format!(
                "there is no shard {shard}; the last is {}",
                self.shards.saturating_sub(1)
            )));
        }
        if self.dead_letter_queue(found, shard).is_some() {
            return Ok(());
        }
        self.check_room(1)
    }

    /// The queue of a group's dead-letter topic in a shard.
    pub(crate) fn dead_letter_queue(&self, group: &Group, shard: ShardId) -> Option<QueueId> {
        self.topic(&dead_letter_name(group))?
            .queues
            .iter()
            .copied()
            .find(|queue| self.shard_of(*queue) == shard)
    }

    /// Adds the queue that lies in `shard` by its id: ids of other shards are passed over.
    pub(super) fn open_dead_letter(
        &mut self,
        now: Timestamp,
        group: &GroupRef,
        shard: ShardId,
    ) -> Option<TopicId> {
        let group = self.group(group).expect("checked");
        if self.dead_letter_queue(group, shard).is_some() {
            return None;
        }
        let name = dead_letter_name(group);
        let others = u64::from(self.shards).max(2);
        let queue = (self.last.queue + 1..self.last.queue + others)
            .map(QueueId)
            // Only shard 0 of several has no queues, and nothing is ever dead-lettered from there.
            .find(|queue| self.shard_of(*queue) == shard)?;
        self.last.queue = queue.0;
        let topic = match self.topic_names.get(&name) {
            Some(topic) => {
                let topic = *topic;
                self.topics
                    .get_mut(&topic)
                    .expect("named topics exist")
                    .layout_version += 1;
                topic
            }
            None => self.new_topic(now, &name, TopicSettings::of_dead_letters()),
        };
        self.add_queue(topic, queue);
        Some(topic)
    }
}
