//! Views: a topic and a chain of filters under a name.

use std::sync::Arc;

use tidegate_model::{Timestamp, ViewId, code};

use super::super::refuse::{argument, exists, full, users_name};
use super::super::{Catalog, View, no_topic, no_view};
use super::Fallout;
use crate::id::SourceId;
use crate::limit::{VIEW_BINDINGS_MAX, VIEWS_MAX};
use crate::reference::ViewRef;
use crate::refusal::Refusal;
use crate::request::BindingSpec;

impl Catalog {
    pub(super) fn check_create_view(
        &self,
        view: &ViewRef,
        bindings: &[BindingSpec],
    ) -> Result<(), Refusal> {
        users_name("view", &view.view)?;
        if self.topic(&view.topic).is_none() {
            return Err(no_topic(&view.topic));
        }
        if bindings.is_empty() || bindings.len() > VIEW_BINDINGS_MAX {
            return Err(argument(format!(
                "a view has 1 to {VIEW_BINDINGS_MAX} plugins; {} were given for {view}",
                bindings.len()
            )));
        }
        for binding in bindings {
            self.check_binding(binding)?;
        }
        if self.view_names.contains_key(view) {
            return Err(exists(code::VIEW_EXISTS, "view", view));
        }
        if self.views.len() >= VIEWS_MAX {
            return Err(full("views", VIEWS_MAX));
        }
        self.check_configs(bindings, 0)
    }

    pub(super) fn create_view(&mut self, now: Timestamp, name: &ViewRef, specs: &[BindingSpec]) {
        self.last.view += 1;
        let id = ViewId(self.last.view);
        let bindings: Arc<[_]> = specs.iter().map(|spec| self.new_binding(spec)).collect();
        self.view_names.insert(name.clone(), id);
        self.views.insert(
            id,
            View {
                id,
                name: name.clone(),
                topic: self.topic_names[&name.topic],
                bindings,
                created: now,
            },
        );
    }

    pub(super) fn check_delete_view(&self, view: &ViewRef) -> Result<(), Refusal> {
        match self.view(view) {
            Some(_) => Ok(()),
            None if self.topic(&view.topic).is_none() => Err(no_topic(&view.topic)),
            None => Err(no_view(view)),
        }
    }

    pub(super) fn delete_view(&mut self, name: &ViewRef) -> Fallout {
        let id = self.view_names.remove(name).expect("checked");
        let source = SourceId::View(id);
        let queues = self.queues_of(source);
        self.views.remove(&id);
        Fallout {
            cursors: self.drop_cursors(|cursor| cursor.source == source, &queues),
            what: format!("view {name}"),
            ..Fallout::default()
        }
    }
}
