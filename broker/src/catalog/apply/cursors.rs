//! Cursors: made by a group's first subscription of a source.

use tidegate_model::{Offset, QueueId};

use super::super::refuse::full;
use super::super::{Catalog, Cursor, no_group};
use crate::id::{CursorId, SourceId};
use crate::limit::CURSORS_MAX;
use crate::reference::{GroupRef, SourceRef};
use crate::refusal::Refusal;

impl Catalog {
    pub(super) fn check_open_cursor(
        &self,
        group: &GroupRef,
        source: &SourceRef,
    ) -> Result<(), Refusal> {
        let found = self.group(group).ok_or_else(|| no_group(group))?;
        let (source, _) = self.source(source)?;
        if !found.cursors.contains_key(&source) && self.cursors.len() >= CURSORS_MAX {
            return Err(full("pairs of group and source", CURSORS_MAX));
        }
        Ok(())
    }

    pub(super) fn open_cursor(
        &mut self,
        group: &GroupRef,
        source: &SourceRef,
        starts: &[(QueueId, Offset)],
    ) {
        let (source, topic) = self.source(source).expect("checked");
        let starts = starts
            .iter()
            .copied()
            .filter(|(queue, _)| self.queues.get(*queue) == Some(&topic.id))
            .collect();
        let group = self
            .groups
            .get_mut(&self.group_names[group])
            .expect("named groups exist");
        if group.cursors.contains_key(&source) {
            return;
        }
        self.last.cursor += 1;
        let id = CursorId(self.last.cursor);
        group.cursors.insert(source, id);
        self.cursors.insert(
            id,
            Cursor {
                id,
                group: group.id,
                source,
                starts,
            },
        );
    }

    /// Queues that a source reads.
    pub(crate) fn queues_of(&self, source: SourceId) -> Vec<QueueId> {
        let topic = match source {
            SourceId::Topic(topic) => Some(topic),
            SourceId::View(view) => self.views.get(&view).map(|view| view.topic),
        };
        topic
            .and_then(|topic| self.topics.get(&topic))
            .map(|topic| topic.queues.clone())
            .unwrap_or_default()
    }

    /// Removes the cursors for which `gone` holds; all ran over `queues`.
    pub(super) fn drop_cursors(
        &mut self,
        gone: impl Fn(&Cursor) -> bool,
        queues: &[QueueId],
    ) -> Vec<(CursorId, Vec<QueueId>)> {
        let mut dropped = Vec::new();
        let groups = &mut self.groups;
        self.cursors.retain(|id, cursor| {
            if !gone(cursor) {
                return true;
            }
            if let Some(group) = groups.get_mut(&cursor.group) {
                group.cursors.remove(&cursor.source);
            }
            dropped.push((*id, queues.to_vec()));
            false
        });
        dropped
    }
}
