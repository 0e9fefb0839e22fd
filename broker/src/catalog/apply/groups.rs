//! Consumer groups, and filters bound to their subscriptions of topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidegate_model::{GroupId, Name, Timestamp, TopicRef, code};

use super::super::refuse::{argument, exists, full, users_name};
use super::super::{Catalog, Group, no_binding, no_group, no_topic};
use super::{Fallout, config_bytes};
use crate::id::SourceId;
use crate::limit::{ATTEMPTS_MAX, BACKOFF_STEPS_MAX, GROUPS_MAX};
use crate::reference::GroupRef;
use crate::refusal::Refusal;
use crate::request::{BindingSpec, RetryPolicy};

impl Catalog {
    pub(super) fn check_create_group(
        &self,
        group: &GroupRef,
        policy: &RetryPolicy,
    ) -> Result<(), Refusal> {
        users_name("namespace", &group.namespace)?;
        users_name("group", &group.group)?;
        if Name::dead_letter_topic(&group.group).is_none() {
            return Err(Refusal::new(
                code::INVALID_NAME,
                format!("the group name {group} leaves no room for its dead-letter topic's prefix"),
            )
            .hint("Choose a name of at most 122 characters."));
        }
        if policy.max_attempts == 0 || policy.max_attempts > ATTEMPTS_MAX {
            return Err(argument(format!(
                "max_attempts of group {group} is {}; it goes from 1 to {ATTEMPTS_MAX}",
                policy.max_attempts
            )));
        }
        if policy.backoff_ms.len() > BACKOFF_STEPS_MAX {
            return Err(argument(format!(
                "the backoff of group {group} has {} steps; {BACKOFF_STEPS_MAX} are allowed",
                policy.backoff_ms.len()
            )));
        }
        if self.group_names.contains_key(group) {
            return Err(exists(code::GROUP_EXISTS, "group", group));
        }
        if self.groups.len() >= GROUPS_MAX {
            return Err(full("consumer groups", GROUPS_MAX));
        }
        Ok(())
    }

    pub(super) fn create_group(&mut self, now: Timestamp, name: &GroupRef, policy: &RetryPolicy) {
        self.last.group += 1;
        let id = GroupId(self.last.group);
        self.group_names.insert(name.clone(), id);
        self.groups.insert(
            id,
            Group {
                id,
                name: name.clone(),
                policy: policy.clone(),
                created: now,
                cursors: BTreeMap::new(),
                bindings: BTreeMap::new(),
            },
        );
    }

    pub(super) fn check_group(&self, group: &GroupRef) -> Result<(), Refusal> {
        self.group(group).map(|_| ()).ok_or_else(|| no_group(group))
    }

    pub(super) fn delete_group(&mut self, name: &GroupRef) -> Fallout {
        let id = self.group_names.remove(name).expect("checked");
        let group = self.groups.remove(&id).expect("named groups exist");
        let cursors = group
            .cursors
            .into_iter()
            .map(|(source, cursor)| {
                self.cursors.remove(&cursor);
                (cursor, self.queues_of(source))
            })
            .collect();
        Fallout {
            cursors,
            what: format!("group {name}"),
            ..Fallout::default()
        }
    }

    pub(super) fn check_bind(
        &self,
        group: &GroupRef,
        topic: &TopicRef,
        binding: &BindingSpec,
    ) -> Result<(), Refusal> {
        self.check_group(group)?;
        let topic_id = self.topic(topic).ok_or_else(|| no_topic(topic))?.id;
        self.check_binding(binding)?;
        let bound = self
            .group(group)
            .and_then(|group| group.bindings.get(&topic_id));
        let given_back = bound.map_or(0, |bindings| config_bytes(bindings));
        self.check_configs(std::slice::from_ref(binding), given_back)
    }

    pub(super) fn check_unbind(&self, group: &GroupRef, topic: &TopicRef) -> Result<(), Refusal> {
        let found = self.group(group).ok_or_else(|| no_group(group))?;
        let topic_id = self.topic(topic).ok_or_else(|| no_topic(topic))?.id;
        if found.bindings.contains_key(&topic_id) {
            Ok(())
        } else {
            Err(no_binding(group, topic))
        }
    }

    pub(super) fn bind(
        &mut self,
        group: &GroupRef,
        topic: &TopicRef,
        binding: Option<&BindingSpec>,
    ) -> Fallout {
        let topic = self.topic_names[topic];
        let bound = binding.map(|spec| Arc::from([self.new_binding(spec)]));
        let group = self
            .groups
            .get_mut(&self.group_names[group])
            .expect("named groups exist");
        match bound {
            Some(bound) => drop(group.bindings.insert(topic, bound)),
            None => drop(group.bindings.remove(&topic)),
        }
        Fallout {
            rebound: group
                .cursors
                .get(&SourceId::Topic(topic))
                .copied()
                .into_iter()
                .collect(),
            ..Fallout::default()
        }
    }
}
