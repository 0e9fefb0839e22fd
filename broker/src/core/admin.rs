//! Administration: what a request asks of the catalogue.

use tidegate_model::{GroupId, ShardId, TopicSettings};

use super::{Core, DeadLetterTarget, Place, Plan, PluginFacts, QueueBounds, Resolved};
use crate::catalog::{CatalogCommand, no_group, settings_refused};
use crate::id::{CursorId, SourceId};
use crate::reference::{GroupRef, SourceRef};
use crate::refusal::Refusal;
use crate::request::Request;

impl Core {
    /// How an admin request goes on: the requests to create, delete, describe, list, bind, unbind
    /// and deploy. `facts` come with a deploy.
    ///
    /// # Panics
    /// For requests that have a method of their own, and a deploy without facts.
    #[must_use]
    pub fn plan(
        &self,
        request: &Request,
        facts: Option<&PluginFacts>,
        bounds: &dyn QueueBounds,
    ) -> Plan {
        let command = match command(request, facts) {
            Ok(command) => command,
            Err(refusal) => return Plan::Refuse(refusal),
        };
        match command {
            Some(command) => match self.catalog.check(&command) {
                Ok(()) => Plan::Append(command),
                Err(refusal) => Plan::Refuse(refusal),
            },
            None => match self.describe(request, bounds) {
                Ok(reply) => Plan::Reply(reply),
                Err(refusal) => Plan::Refuse(refusal),
            },
        }
    }

    /// Whether a command that is planned elsewhere would be applied now.
    ///
    /// # Errors
    /// What applying it would be refused with.
    pub fn check(&self, command: &CatalogCommand) -> Result<(), Refusal> {
        self.catalog.check(command)
    }

    /// A source by its ids, for raw reads and to find start offsets.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`.
    pub fn resolve(&self, source: &SourceRef) -> Result<Resolved, Refusal> {
        let (id, topic) = self.catalog.source(source)?;
        Ok(Resolved {
            source: id,
            topic: topic.id,
            queues: topic
                .queues
                .iter()
                .map(|queue| Place {
                    queue: *queue,
                    shard: self.catalog.shard_of(*queue),
                })
                .collect(),
            bindings: match id {
                SourceId::Topic(_) => Default::default(),
                SourceId::View(view) => self.catalog.views[&view].bindings.clone(),
            },
        })
    }

    /// The cursor of a group on a source, for receipts; `None` before its first subscription.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`.
    pub fn cursor(
        &self,
        group: &GroupRef,
        source: &SourceRef,
    ) -> Result<Option<CursorId>, Refusal> {
        let found = self.catalog.group(group).ok_or_else(|| no_group(group))?;
        let (source, _) = self.catalog.source(source)?;
        Ok(found.cursors.get(&source).copied())
    }

    /// Where copies for a group's dead-letter topic go, which lie in the shard of the original.
    #[must_use]
    pub fn dead_letter_target(&self, group: GroupId, shard: ShardId) -> DeadLetterTarget {
        let Some(group) = self.catalog.group_by_id(group) else {
            return DeadLetterTarget::Gone;
        };
        match self.catalog.dead_letter_queue(group, shard) {
            Some(queue) => DeadLetterTarget::Queue(queue),
            None => DeadLetterTarget::Create(CatalogCommand::OpenDeadLetter {
                group: group.name.clone(),
                shard,
            }),
        }
    }
}

/// The command that a request comes down to; `None` if it only asks.
fn command(
    request: &Request,
    facts: Option<&PluginFacts>,
) -> Result<Option<CatalogCommand>, Refusal> {
    Ok(Some(match request {
        Request::CreateTopic(r) => CatalogCommand::CreateTopic {
            topic: r.topic.clone(),
            queues: r.queues,
            settings: TopicSettings::default()
                .changed(&r.settings)
                .map_err(|error| settings_refused(&r.topic, &error))?,
        },
        Request::UpdateTopic(r) => CatalogCommand::UpdateTopic {
            topic: r.topic.clone(),
            change: r.change,
        },
        Request::DeleteTopic(r) => CatalogCommand::DeleteTopic {
            topic: r.topic.clone(),
        },
        Request::CreateGroup(r) => CatalogCommand::CreateGroup {
            group: r.group.clone(),
            policy: r.policy.clone(),
        },
        Request::DeleteGroup(r) => CatalogCommand::DeleteGroup {
            group: r.group.clone(),
        },
        Request::CreateView(r) => CatalogCommand::CreateView {
            view: r.view.clone(),
            bindings: r.bindings.clone(),
        },
        Request::DeleteView(r) => CatalogCommand::DeleteView {
            view: r.view.clone(),
        },
        Request::DeployPlugin(r) => {
            let facts = facts.expect("a deploy comes with what compiling it told");
            CatalogCommand::DeployPlugin {
                plugin: r.plugin.clone(),
                digest: facts.digest,
                world: facts.world.clone(),
                component: r.component.clone(),
            }
        }
        Request::RemovePlugin(r) => CatalogCommand::RemovePlugin {
            plugin: r.plugin.clone(),
        },
        Request::Bind(r) => CatalogCommand::Bind {
            group: r.group.clone(),
            topic: r.topic.clone(),
            binding: r.binding.clone(),
        },
        Request::Unbind(r) => CatalogCommand::Unbind {
            group: r.group.clone(),
            topic: r.topic.clone(),
        },
        Request::RevokeClient(r) => CatalogCommand::RevokeClient {
            name: r.name.clone(),
            public_key: r.public_key,
        },
        _ => return Ok(None),
    }))
}
