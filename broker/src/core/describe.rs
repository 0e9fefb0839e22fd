//! What there is, as replies.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use tidegate_model::{Name, QueueId, TopicRef};

use super::{Core, QueueBounds};
use crate::catalog::{
    Binding, Catalog, Client, Group, Invitation, NameMap, Plugin, Topic, View, no_group, no_plugin,
    no_topic, no_view,
};
use crate::id::{CursorId, SourceId};
use crate::limit::CLIENTS_PAGE;
use crate::reference::{GroupRef, PluginRef, ViewRef};
use crate::refusal::Refusal;
use crate::reply::{
    ClientInfo, ClientPage, CursorInfo, GroupInfo, PluginInfo, QueueInfo, Reply, SubscriptionInfo,
    TopicInfo, ViewInfo,
};
use crate::request::{BindingSpec, ListClients, Request};

impl Core {
    /// The answer to a request whose command was applied: what it made, or that it is done.
    ///
    /// # Panics
    /// As [`Core::plan`].
    #[must_use]
    pub fn reply_for(&self, request: &Request, bounds: &dyn QueueBounds) -> Reply {
        let made = match request {
            Request::CreateTopic(r) => self.topic_reply(&r.topic, bounds),
            Request::UpdateTopic(r) => self.topic_reply(&r.topic, bounds),
            Request::CreateGroup(r) => self.group_reply(&r.group, bounds),
            Request::CreateView(r) => self.view_reply(&r.view),
            Request::DeployPlugin(r) => self.plugin_reply(&r.plugin),
            _ => return Reply::Done,
        };
        // Removed again by a command that became durable with it: made it was, all the same.
        made.unwrap_or(Reply::Done)
    }

    /// The answer to a request that only asks.
    pub(super) fn describe(
        &self,
        request: &Request,
        bounds: &dyn QueueBounds,
    ) -> Result<Reply, Refusal> {
        let catalog = &self.catalog;
        Ok(match request {
            Request::DescribeTopic(r) => self.topic_reply(&r.topic, bounds)?,
            Request::DescribeGroup(r) => self.group_reply(&r.group, bounds)?,
            Request::DescribeView(r) => self.view_reply(&r.view)?,
            Request::DescribePlugin(r) => self.plugin_reply(&r.plugin)?,
            Request::ListTopics(r) => Reply::Topics(
                by_name(&catalog.topic_names, |name| name.namespace == r.namespace)
                    .map(|id| self.topic_info(&catalog.topics[id], bounds))
                    .collect(),
            ),
            Request::ListGroups(r) => Reply::Groups(
                by_name(&catalog.group_names, |name| name.namespace == r.namespace)
                    .map(|id| self.group_info(&catalog.groups[id], bounds))
                    .collect(),
            ),
            Request::ListViews(r) => Reply::Views(
                by_name(&catalog.view_names, |name| {
                    name.topic.namespace == r.namespace
                })
                .map(|id| view_info(&catalog.views[id]))
                .collect(),
            ),
            Request::ListPlugins(r) => Reply::Plugins(
                catalog
                    .plugins
                    .values()
                    .filter(|plugin| plugin.name.namespace == r.namespace)
                    .map(|plugin| self.plugin_info(plugin))
                    .collect(),
            ),
            Request::ListClients(r) => Reply::Clients(client_page(catalog, r)),
            _ => unreachable!("the owner sends requests that have a method of their own there"),
        })
    }

    fn topic_reply(&self, name: &TopicRef, bounds: &dyn QueueBounds) -> Result<Reply, Refusal> {
        let topic = self.catalog.topic(name).ok_or_else(|| no_topic(name))?;
        Ok(Reply::Topic(self.topic_info(topic, bounds)))
    }

    fn group_reply(&self, name: &GroupRef, bounds: &dyn QueueBounds) -> Result<Reply, Refusal> {
        let group = self.catalog.group(name).ok_or_else(|| no_group(name))?;
        Ok(Reply::Group(self.group_info(group, bounds)))
    }

    fn view_reply(&self, name: &ViewRef) -> Result<Reply, Refusal> {
        let view =
            self.catalog
                .view(name)
                .ok_or_else(|| match self.catalog.topic(&name.topic) {
                    Some(_) => no_view(name),
                    None => no_topic(&name.topic),
                })?;
        Ok(Reply::View(view_info(view)))
    }

    fn plugin_reply(&self, name: &PluginRef) -> Result<Reply, Refusal> {
        let plugin = self.catalog.plugin(name).ok_or_else(|| no_plugin(name))?;
        Ok(Reply::Plugin(self.plugin_info(plugin)))
    }

    fn topic_info(&self, topic: &Topic, bounds: &dyn QueueBounds) -> TopicInfo {
        TopicInfo {
            topic: topic.name.clone(),
            layout_version: topic.layout_version,
            created: topic.created,
            queues: self.queue_infos(topic, bounds),
            settings: topic.settings,
        }
    }

    pub(super) fn queue_infos(&self, topic: &Topic, bounds: &dyn QueueBounds) -> Vec<QueueInfo> {
        topic
            .queues
            .iter()
            .map(|&queue| {
                let (start, next) = bounds.bounds(queue);
                QueueInfo {
                    queue,
                    shard: self.catalog.shard_of(queue),
                    start,
                    next,
                    bytes: bounds.bytes(queue),
                    oldest: None,
                }
            })
            .collect()
    }

    fn group_info(&self, group: &Group, bounds: &dyn QueueBounds) -> GroupInfo {
        let consumed = group
            .cursors
            .iter()
            .filter_map(|(source, cursor)| self.subscription_info(group, *source, *cursor, bounds));
        let bound = group
            .bindings
            .iter()
            .filter(|(topic, _)| !group.cursors.contains_key(&SourceId::Topic(**topic)))
            .filter_map(|(topic, bindings)| {
                Some(SubscriptionInfo {
                    source: self.catalog.source_name(SourceId::Topic(*topic))?,
                    binding: bindings.first().map(spec),
                    members: 0,
                    queues: Vec::new(),
                })
            });
        GroupInfo {
            group: group.name.clone(),
            policy: group.policy.clone(),
            subscriptions: consumed.chain(bound).collect(),
        }
    }

    fn subscription_info(
        &self,
        group: &Group,
        source: SourceId,
        cursor: CursorId,
        bounds: &dyn QueueBounds,
    ) -> Option<SubscriptionInfo> {
        let binding = match source {
            SourceId::Topic(topic) => group.bindings.get(&topic).and_then(|all| all.first()),
            SourceId::View(_) => None,
        };
        Some(SubscriptionInfo {
            source: self.catalog.source_name(source)?,
            binding: binding.map(spec),
            members: self.delivery.members_of(cursor),
            queues: self
                .catalog
                .queues_of(source)
                .into_iter()
                .map(|queue| self.cursor_info(cursor, queue, bounds))
                .collect(),
        })
    }

    fn cursor_info(
        &self,
        cursor: CursorId,
        queue: QueueId,
        bounds: &dyn QueueBounds,
    ) -> CursorInfo {
        let state = self.shard_of(queue).cursor(queue, cursor);
        let live = self.delivery.lane_info(cursor, queue, &self.shards);
        let (start, next) = bounds.bounds(queue);
        let at = live.cursor.unwrap_or_else(|| self.position(cursor, queue));
        CursorInfo {
            queue,
            // What is gone before a group ever came to it is no lag.
            cursor: at.max(start),
            next,
            leased: live.leased,
            parked: state.map_or(0, |state| state.parked_count()),
            stopped: live.stopped,
        }
    }

    fn plugin_info(&self, plugin: &Plugin) -> PluginInfo {
        PluginInfo {
            plugin: plugin.name.clone(),
            digest: plugin.digest,
            world: plugin.world.clone(),
            size: plugin.size,
            deployed: plugin.deployed,
            bound_to: self.catalog.bound_to(&plugin.name),
            failures: Vec::new(),
        }
    }
}

/// The ids of those that are wanted, by rising name.
fn by_name<N: Ord, I: Ord>(
    names: &NameMap<N, I>,
    wanted: impl Fn(&N) -> bool,
) -> impl Iterator<Item = &I> {
    let mut found: Vec<_> = names.iter().filter(|(name, _)| wanted(name)).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, id)| id)
}

fn client_page(catalog: &Catalog, list: &ListClients) -> ClientPage {
    let is_wanted = |name: &Name| list.name.as_ref().is_none_or(|wanted| name == wanted);
    let invited = catalog
        .invitations
        .values()
        .filter(|_| list.after.is_none());
    let mut clients: Vec<ClientInfo> = invited
        .filter(|invitation| is_wanted(&invitation.name))
        .map(invitation_info)
        .collect();
    clients.sort_by(|a, b| a.name.cmp(&b.name));
    let from = list.after.map_or(Unbounded, Excluded);
    let page = |of: &BTreeMap<[u8; 32], Client>| -> Vec<ClientInfo> {
        of.range((from, Unbounded))
            .map(|(_, client)| client)
            .filter(|client| is_wanted(&client.name))
            .take(CLIENTS_PAGE + 1)
            .map(client_info)
            .collect()
    };
    let mut registered = page(&catalog.clients);
    if list.revoked {
        registered.append(&mut page(&catalog.revoked));
        registered.sort_by_key(|client| client.public_key);
    }
    let more = registered.len() > CLIENTS_PAGE;
    registered.truncate(CLIENTS_PAGE);
    clients.append(&mut registered);
    ClientPage { clients, more }
}

fn client_info(client: &Client) -> ClientInfo {
    ClientInfo {
        name: client.name.clone(),
        roles: client.roles,
        namespaces: client.namespaces.to_vec(),
        public_key: Some(client.public_key),
        since: client.registered,
        revoked: client.revoked,
        expires: None,
    }
}

fn invitation_info(invitation: &Invitation) -> ClientInfo {
    ClientInfo {
        name: invitation.name.clone(),
        roles: invitation.roles,
        namespaces: invitation.namespaces.to_vec(),
        public_key: None,
        since: invitation.invited,
        revoked: None,
        expires: Some(invitation.expires),
    }
}

fn view_info(view: &View) -> ViewInfo {
    ViewInfo {
        view: view.name.clone(),
        bindings: view.bindings.iter().map(spec).collect(),
        created: view.created,
    }
}

fn spec(binding: &Binding) -> BindingSpec {
    BindingSpec {
        plugin: binding.plugin.clone(),
        config: binding.config.clone(),
        on_error: binding.on_error,
    }
}
