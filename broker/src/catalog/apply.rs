//! Checking and applying commands. The same check serves planning and applying, so that a command
//! overtaken by another is refused in the words in which it would have been refused at once.

mod clients;
mod cursors;
mod groups;
mod plugins;
mod topics;
mod views;

use bytes::Bytes;
use tidegate_model::{QueueId, Timestamp, TopicId, code};

use super::{Binding, Catalog, CatalogCommand};
use crate::catalog::no_plugin;
use crate::id::{BindingId, CursorId};
use crate::limit::{BINDING_CONFIG_BYTES_MAX, BINDING_CONFIGS_BYTES_MAX};
use crate::refusal::Refusal;
use crate::request::BindingSpec;

/// What a command took away or changed, for the state of shards and for those who consume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fallout {
    /// Queues that are gone.
    pub(crate) queues: Vec<QueueId>,
    /// Cursors that are gone, with the queues they ran over.
    pub(crate) cursors: Vec<(CursorId, Vec<QueueId>)>,
    /// What was removed, as in `topic orders`.
    pub(crate) what: String,
    /// Cursors whose filters are others now.
    pub(crate) rebound: Vec<CursorId>,
    /// A topic that has more queues.
    pub(crate) grown: Option<TopicId>,
}

impl Catalog {
    /// Whether the command would be applied now.
    pub(crate) fn check(&self, command: &CatalogCommand) -> Result<(), Refusal> {
        match command {
            CatalogCommand::CreateTopic {
                topic,
                queues,
                settings,
            } => self.check_create_topic(topic, *queues, settings),
            CatalogCommand::UpdateTopic { topic, change } => {
                self.check_update_topic(topic, change).map(drop)
            }
            CatalogCommand::DeleteTopic { topic } => self.check_delete_topic(topic),
            CatalogCommand::CreateGroup { group, policy } => self.check_create_group(group, policy),
            CatalogCommand::DeleteGroup { group } => self.check_group(group),
            CatalogCommand::CreateView { view, bindings } => self.check_create_view(view, bindings),
            CatalogCommand::DeleteView { view } => self.check_delete_view(view),
            CatalogCommand::DeployPlugin {
                plugin,
                digest,
                world,
                component,
            } => self.check_deploy_plugin(plugin, digest, world, component),
            CatalogCommand::RemovePlugin { plugin } => self.check_remove_plugin(plugin),
            CatalogCommand::Bind {
                group,
                topic,
                binding,
            } => self.check_bind(group, topic, binding),
            CatalogCommand::Unbind { group, topic } => self.check_unbind(group, topic),
            CatalogCommand::OpenCursor { group, source, .. } => {
                self.check_open_cursor(group, source)
            }
            CatalogCommand::OpenDeadLetter { group, shard } => {
                self.check_open_dead_letter(group, *shard)
            }
            CatalogCommand::RegisterClient { public_key, .. } => {
                self.check_register_client(public_key)
            }
            CatalogCommand::InviteClient { .. } => self.check_invite_client(command),
            CatalogCommand::AcceptInvitation { token, public_key } => {
                self.check_accept_invitation(token, public_key)
            }
            CatalogCommand::RevokeClient { name, public_key } => {
                self.check_revoke_client(name, public_key.as_ref())
            }
        }
    }

    /// Applies a command that is durable.
    pub(crate) fn apply(
        &mut self,
        now: Timestamp,
        command: &CatalogCommand,
    ) -> Result<Fallout, Refusal> {
        self.check(command)?;
        Ok(match command {
            CatalogCommand::CreateTopic {
                topic,
                queues,
                settings,
            } => {
                self.create_topic(now, topic, *queues, *settings);
                Fallout::default()
            }
            CatalogCommand::UpdateTopic { topic, change } => {
                self.update_topic(topic, change);
                Fallout::default()
            }
            CatalogCommand::DeleteTopic { topic } => self.delete_topic(topic),
            CatalogCommand::CreateGroup { group, policy } => {
                self.create_group(now, group, policy);
                Fallout::default()
            }
            CatalogCommand::DeleteGroup { group } => self.delete_group(group),
            CatalogCommand::CreateView { view, bindings } => {
                self.create_view(now, view, bindings);
                Fallout::default()
            }
            CatalogCommand::DeleteView { view } => self.delete_view(view),
            CatalogCommand::DeployPlugin {
                plugin,
                digest,
                world,
                component,
            } => {
                self.deploy_plugin(now, plugin, *digest, world, component.len() as u64);
                Fallout::default()
            }
            CatalogCommand::RemovePlugin { plugin } => {
                self.plugins.remove(plugin);
                Fallout::default()
            }
            CatalogCommand::Bind {
                group,
                topic,
                binding,
            } => self.bind(group, topic, Some(binding)),
            CatalogCommand::Unbind { group, topic } => self.bind(group, topic, None),
            CatalogCommand::OpenCursor {
                group,
                source,
                starts,
            } => {
                self.open_cursor(group, source, starts);
                Fallout::default()
            }
            CatalogCommand::OpenDeadLetter { group, shard } => Fallout {
                grown: self.open_dead_letter(now, group, *shard),
                ..Fallout::default()
            },
            CatalogCommand::RegisterClient { public_key, name } => {
                self.register_client(now, *public_key, name);
                Fallout::default()
            }
            CatalogCommand::InviteClient { .. } => {
                self.invite_client(command);
                Fallout::default()
            }
            CatalogCommand::AcceptInvitation { token, public_key } => {
                self.accept_invitation(now, token, *public_key);
                Fallout::default()
            }
            CatalogCommand::RevokeClient { name, public_key } => {
                self.revoke_client(now, name, public_key.as_ref());
                Fallout::default()
            }
        })
    }

    fn check_binding(&self, spec: &BindingSpec) -> Result<(), Refusal> {
        if !self.plugins.contains_key(&spec.plugin) {
            return Err(no_plugin(&spec.plugin));
        }
        if spec.config.len() > BINDING_CONFIG_BYTES_MAX {
            return Err(super::refuse::argument(format!(
                "a binding's configuration has at most {BINDING_CONFIG_BYTES_MAX} bytes; this one for plugin {} has {}",
                spec.plugin,
                spec.config.len()
            )));
        }
        Ok(())
    }

    /// Whether configurations of so many bytes, `given_back` of which go, may be added to those that are
    /// kept.
    fn check_configs(&self, specs: &[BindingSpec], given_back: usize) -> Result<(), Refusal> {
        let more: usize = specs.iter().map(|spec| spec.config.len()).sum();
        if more <= given_back {
            return Ok(());
        }
        let of_views = self.views.values().map(|view| &view.bindings);
        let of_groups = self
            .groups
            .values()
            .flat_map(|group| group.bindings.values());
        let kept: usize = of_views
            .chain(of_groups)
            .map(|bindings| config_bytes(bindings))
            .sum();
        if kept - given_back + more > BINDING_CONFIGS_BYTES_MAX {
            return Err(Refusal::new(
                code::LIMIT_REACHED,
                format!(
                    "the configurations of this node's bindings have {kept} bytes; with {more} more they would have over {BINDING_CONFIGS_BYTES_MAX}"
                ),
            )
            .hint("remove views and bindings that are no longer used, or configure them with less"));
        }
        Ok(())
    }

    /// A checked binding under an id of its own.
    fn new_binding(&mut self, spec: &BindingSpec) -> Binding {
        self.last.binding += 1;
        Binding {
            id: BindingId(self.last.binding),
            plugin: spec.plugin.clone(),
            digest: self.plugins[&spec.plugin].digest,
            // A copy: what was sent lies in a buffer with all that came with it.
            config: Bytes::copy_from_slice(&spec.config),
            on_error: spec.on_error,
        }
    }
}

/// Bytes of the configurations of a chain.
fn config_bytes(bindings: &[Binding]) -> usize {
    bindings.iter().map(|binding| binding.config.len()).sum()
}
