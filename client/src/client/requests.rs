//! Requests that are answered once.

use std::time::Duration;

use tidegate_model::{
    Code, MessageId, Name, Offset, Order, Timestamp, TopicChange, TopicRef, code,
};
use tidegate_wire::client::settle_outcome;
use tidegate_wire::limits::SETTLE_RUNS_MAX;
use tidegate_wire::proto::{self, ReplyKind, RequestKind};
use tidegate_wire::settle::encode_runs;
use tidegate_wire::{Delivery, Outcome};

use super::Client;
use crate::catalog::{
    BindingSpec, CreateGroup, CreateTopic, CreateView, CursorMove, DeployPlugin, GroupInfo,
    GroupRef, PluginInfo, PluginRef, ResetGroup, ServerInfo, Source, StartAt, TopicInfo, ViewInfo,
    ViewRef,
};
use crate::consumer::{ConsumerOptions, runs};
use crate::message::{Find, FoundPage, Handle, ReadResult, Received, unpack};
use crate::{Error, convert};

/// Bytes of sections that one read asks for; the first batch comes whatever its size.
const READ_BYTES_MAX: u32 = 4 * 1024 * 1024;

impl Client {
    /// Makes a topic.
    ///
    /// # Errors
    /// `TOPIC_EXISTS`, `INVALID_ARGUMENT`, and what any request may meet: see [`Error::remedy`].
    pub async fn create_topic(&self, create: &CreateTopic) -> Result<TopicInfo, Error> {
        let kind = RequestKind::CreateTopic(proto::CreateTopic {
            topic: Some(convert::topic_ref(&create.topic)),
            queues: create.queues,
            settings: Some((&create.settings).into()),
        });
        match self.ask(kind).await? {
            (ReplyKind::Topic(info), _) => convert::topic_info(info),
            _ => Err(unfitting()),
        }
    }

    /// Changes what a topic keeps. What may go goes within seconds.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `INVALID_ARGUMENT`.
    pub async fn update_topic(
        &self,
        topic: &TopicRef,
        change: &TopicChange,
    ) -> Result<TopicInfo, Error> {
        let kind = RequestKind::UpdateTopic(proto::UpdateTopic {
            topic: Some(convert::topic_ref(topic)),
            change: Some(change.into()),
        });
        match self.ask(kind).await? {
            (ReplyKind::Topic(info), _) => convert::topic_info(info),
            _ => Err(unfitting()),
        }
    }

    /// Removes a topic with its messages.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `IN_USE`.
    pub async fn delete_topic(&self, topic: &TopicRef) -> Result<(), Error> {
        self.ask_done(RequestKind::DeleteTopic(convert::topic_ref(topic)))
            .await
    }

    /// One topic.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`.
    pub async fn topic(&self, topic: &TopicRef) -> Result<TopicInfo, Error> {
        let kind = RequestKind::DescribeTopic(convert::topic_ref(topic));
        match self.ask(kind).await? {
            (ReplyKind::Topic(info), _) => convert::topic_info(info),
            _ => Err(unfitting()),
        }
    }

    /// All topics of a namespace.
    ///
    /// # Errors
    /// What any request may meet.
    pub async fn topics(&self, namespace: &Name) -> Result<Vec<TopicInfo>, Error> {
        let kind = RequestKind::ListTopics(convert::namespace(namespace));
        match self.ask(kind).await? {
            (ReplyKind::Topics(list), _) => {
                list.topics.into_iter().map(convert::topic_info).collect()
            }
            _ => Err(unfitting()),
        }
    }

    /// Makes a consumer group.
    ///
    /// # Errors
    /// `GROUP_EXISTS`, `INVALID_ARGUMENT`.
    pub async fn create_group(&self, create: &CreateGroup) -> Result<GroupInfo, Error> {
        let kind = RequestKind::CreateGroup(proto::CreateGroup {
            group: Some(convert::group_ref(&create.group)),
            policy: create.policy.as_ref().map(convert::policy),
        });
        match self.ask(kind).await? {
            (ReplyKind::Group(info), _) => convert::group_info(info),
            _ => Err(unfitting()),
        }
    }

    /// Removes a group with its cursors; its dead-letter topic stays.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`.
    pub async fn delete_group(&self, group: &GroupRef) -> Result<(), Error> {
        self.ask_done(RequestKind::DeleteGroup(convert::group_ref(group)))
            .await
    }

    /// One group.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`.
    pub async fn group(&self, group: &GroupRef) -> Result<GroupInfo, Error> {
        let kind = RequestKind::DescribeGroup(convert::group_ref(group));
        match self.ask(kind).await? {
            (ReplyKind::Group(info), _) => convert::group_info(info),
            _ => Err(unfitting()),
        }
    }

    /// All groups of a namespace.
    ///
    /// # Errors
    /// What any request may meet.
    pub async fn groups(&self, namespace: &Name) -> Result<Vec<GroupInfo>, Error> {
        let kind = RequestKind::ListGroups(convert::namespace(namespace));
        match self.ask(kind).await? {
            (ReplyKind::Groups(list), _) => {
                list.groups.into_iter().map(convert::group_info).collect()
            }
            _ => Err(unfitting()),
        }
    }

    /// Moves a group's cursor, or tells where it would go.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND`, `OFFSET_OUT_OF_RANGE`.
    pub async fn reset_group(&self, reset: &ResetGroup) -> Result<Vec<CursorMove>, Error> {
        let kind = RequestKind::ResetGroup(proto::ResetGroup {
            group: Some(convert::group_ref(&reset.group)),
            source: Some(convert::source_ref(&reset.source)),
            to: Some(convert::start_at(reset.to)),
            dry_run: reset.dry_run,
        });
        match self.ask(kind).await? {
            (ReplyKind::Reset(moves), _) => {
                Ok(moves.moves.iter().map(convert::cursor_move).collect())
            }
            _ => Err(unfitting()),
        }
    }

    /// Makes a view.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `VIEW_EXISTS`, `PLUGIN_NOT_FOUND`, `PLUGIN_CONFIG_REFUSED`.
    pub async fn create_view(&self, create: &CreateView) -> Result<ViewInfo, Error> {
        let kind = RequestKind::CreateView(create_view(create, false));
        match self.ask(kind).await? {
            (ReplyKind::View(info), _) => convert::view_info(info),
            _ => Err(unfitting()),
        }
    }

    /// Whether [`Self::create_view`] would make the view: its plugins are shown their
    /// configurations, and nothing changes.
    ///
    /// # Errors
    /// As [`Self::create_view`].
    pub async fn check_view(&self, create: &CreateView) -> Result<(), Error> {
        self.ask_done(RequestKind::CreateView(create_view(create, true)))
            .await
    }

    /// Removes a view.
    ///
    /// # Errors
    /// `VIEW_NOT_FOUND`.
    pub async fn delete_view(&self, view: &ViewRef) -> Result<(), Error> {
        self.ask_done(RequestKind::DeleteView(convert::view_ref(view)))
            .await
    }

    /// One view.
    ///
    /// # Errors
    /// `VIEW_NOT_FOUND`.
    pub async fn view(&self, view: &ViewRef) -> Result<ViewInfo, Error> {
        let kind = RequestKind::DescribeView(convert::view_ref(view));
        match self.ask(kind).await? {
            (ReplyKind::View(info), _) => convert::view_info(info),
            _ => Err(unfitting()),
        }
    }

    /// All views of a namespace.
    ///
    /// # Errors
    /// What any request may meet.
    pub async fn views(&self, namespace: &Name) -> Result<Vec<ViewInfo>, Error> {
        let kind = RequestKind::ListViews(convert::namespace(namespace));
        match self.ask(kind).await? {
            (ReplyKind::Views(list), _) => list.views.into_iter().map(convert::view_info).collect(),
            _ => Err(unfitting()),
        }
    }

    /// Uploads a plugin version; the server checks and compiles it before it answers. The same
    /// component under the same name and version is there already: doing it again is no error.
    ///
    /// # Errors
    /// The `PLUGIN_…` codes say what is wrong with the component. After `TIMEOUT`, `CANCELLED` or
    /// `UNREACHABLE` it may be there or not: deploying the same again tells.
    pub async fn deploy_plugin(&self, deploy: &DeployPlugin) -> Result<PluginInfo, Error> {
        let kind = RequestKind::DeployPlugin(proto::DeployPlugin {
            plugin: Some(convert::plugin_ref(&deploy.plugin)),
            component: deploy.component.clone(),
        });
        let asked = self.ask(kind).await.map_err(|mut error| {
            if matches!(
                error.code,
                code::TIMEOUT | code::CANCELLED | code::UNREACHABLE
            ) {
                error.message = format!(
                    "{}; whether {} was deployed is unknown",
                    error.message, deploy.plugin
                );
                return error.hint(
                    "deploy the same file again: where it is there already, that changes nothing",
                );
            }
            error
        });
        match asked? {
            (ReplyKind::Plugin(info), _) => convert::plugin_info(info),
            _ => Err(unfitting()),
        }
    }

    /// Removes a plugin version.
    ///
    /// # Errors
    /// `PLUGIN_NOT_FOUND`, `IN_USE`.
    pub async fn remove_plugin(&self, plugin: &PluginRef) -> Result<(), Error> {
        self.ask_done(RequestKind::RemovePlugin(convert::plugin_ref(plugin)))
            .await
    }

    /// One plugin version.
    ///
    /// # Errors
    /// `PLUGIN_NOT_FOUND`.
    pub async fn plugin(&self, plugin: &PluginRef) -> Result<PluginInfo, Error> {
        let kind = RequestKind::DescribePlugin(convert::plugin_ref(plugin));
        match self.ask(kind).await? {
            (ReplyKind::Plugin(info), _) => convert::plugin_info(info),
            _ => Err(unfitting()),
        }
    }

    /// All plugin versions of a namespace.
    ///
    /// # Errors
    /// What any request may meet.
    pub async fn plugins(&self, namespace: &Name) -> Result<Vec<PluginInfo>, Error> {
        let kind = RequestKind::ListPlugins(convert::namespace(namespace));
        match self.ask(kind).await? {
            (ReplyKind::Plugins(list), _) => {
                list.plugins.into_iter().map(convert::plugin_info).collect()
            }
            _ => Err(unfitting()),
        }
    }

    /// Binds a plugin to a group's subscription of a topic, in place of one bound before.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `TOPIC_NOT_FOUND`, `PLUGIN_NOT_FOUND`, `PLUGIN_CONFIG_REFUSED`.
    pub async fn bind(
        &self,
        group: &GroupRef,
        topic: &TopicRef,
        binding: &BindingSpec,
    ) -> Result<(), Error> {
        self.ask_done(RequestKind::Bind(bind(group, topic, binding, false)))
            .await
    }

    /// Whether [`Self::bind`] would bind the plugin: it is shown its configuration, and nothing
    /// changes.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub async fn check_bind(
        &self,
        group: &GroupRef,
        topic: &TopicRef,
        binding: &BindingSpec,
    ) -> Result<(), Error> {
        self.ask_done(RequestKind::Bind(bind(group, topic, binding, true)))
            .await
    }

    /// Removes the plugin bound to a group's subscription of a topic.
    ///
    /// # Errors
    /// `BINDING_NOT_FOUND`.
    pub async fn unbind(&self, group: &GroupRef, topic: &TopicRef) -> Result<(), Error> {
        self.ask_done(RequestKind::Unbind(proto::Unbind {
            group: Some(convert::group_ref(group)),
            topic: Some(convert::topic_ref(topic)),
        }))
        .await
    }

    /// Version, uptime, limits.
    ///
    /// # Errors
    /// What any request may meet.
    pub async fn server_info(&self) -> Result<ServerInfo, Error> {
        match self
            .ask(RequestKind::DescribeServer(proto::Empty {}))
            .await?
        {
            (ReplyKind::Server(info), _) => Ok(convert::server_info(info)),
            _ => Err(unfitting()),
        }
    }

    /// Takes up to `max_messages` messages once, waiting up to `wait` for the first. Settle them with
    /// [`Self::ack`]. `options` gives group, source, start and invisible duration; its credit bytes
    /// bound the answer.
    ///
    /// # Errors
    /// As [`Self::consumer`].
    pub async fn receive(
        &self,
        options: &ConsumerOptions,
        max_messages: u32,
        wait: Duration,
    ) -> Result<Vec<Received>, Error> {
        let kind = RequestKind::Receive(proto::Receive {
            group: Some(convert::group_ref(&options.group)),
            source: Some(convert::source_ref(&options.source)),
            start: Some(convert::start_at(options.start)),
            max_messages,
            max_bytes: options.credit_bytes,
            invisible_ms: convert::millis(options.invisible),
            wait_ms: convert::millis(wait),
        });
        let time = self.inner.options.request_timeout.saturating_add(wait);
        match self.ask_within(time, kind).await? {
            (ReplyKind::Received(_), deliveries) => unpack_all(&deliveries),
            _ => Err(unfitting()),
        }
    }

    /// Acknowledges messages taken by [`Self::receive`]; durable when it returns. One result per
    /// handle, in order.
    ///
    /// # Errors
    /// Where nothing was settled at all.
    pub async fn ack(
        &self,
        group: &GroupRef,
        source: &Source,
        handles: &[Handle],
    ) -> Result<Vec<Result<(), Code>>, Error> {
        self.settle_all(group, source, handles, Outcome::Ack).await
    }

    /// Says of messages taken by [`Self::receive`] that they failed: they come again after `delay`, or
    /// after the group's backoff. One result per handle, as of [`Self::ack`].
    ///
    /// # Errors
    /// As [`Self::ack`].
    pub async fn nack(
        &self,
        group: &GroupRef,
        source: &Source,
        handles: &[Handle],
        delay: Option<Duration>,
    ) -> Result<Vec<Result<(), Code>>, Error> {
        let delay_ms = delay.map(convert::millis);
        self.settle_all(group, source, handles, Outcome::Nack { delay_ms })
            .await
    }

    /// Keeps messages taken by [`Self::receive`] leased for `invisible` from now. One result per handle,
    /// as of [`Self::ack`].
    ///
    /// # Errors
    /// As [`Self::ack`].
    pub async fn extend(
        &self,
        group: &GroupRef,
        source: &Source,
        handles: &[Handle],
        invisible: Duration,
    ) -> Result<Vec<Result<(), Code>>, Error> {
        let invisible_ms = convert::millis(invisible);
        self.settle_all(group, source, handles, Outcome::Extend { invisible_ms })
            .await
    }

    async fn settle_all(
        &self,
        group: &GroupRef,
        source: &Source,
        handles: &[Handle],
        outcome: Outcome,
    ) -> Result<Vec<Result<(), Code>>, Error> {
        let (runs, places) = runs(handles, outcome)?;
        let mut outcomes = Vec::with_capacity(runs.len());
        for part in runs.chunks(SETTLE_RUNS_MAX) {
            let kind = RequestKind::Settle(proto::Settle {
                group: Some(convert::group_ref(group)),
                source: Some(convert::source_ref(source)),
                runs: encode_runs(part),
            });
            match self.ask(kind).await? {
                (ReplyKind::Settled(settled), _) => outcomes.extend(settle_outcome(settled)?),
                _ => return Err(unfitting()),
            }
        }
        if outcomes.len() != runs.len() {
            return Err(unfitting());
        }
        Ok(places.into_iter().map(|run| outcomes[run]).collect())
    }

    /// Reads stored messages of one queue by offset, without a group. What is damaged is passed over and
    /// told in [`ReadResult::gaps`].
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`, `QUEUE_NOT_FOUND`, `OFFSET_OUT_OF_RANGE`.
    pub async fn read(
        &self,
        source: &Source,
        queue_index: u32,
        from: StartAt,
        max_messages: u32,
    ) -> Result<ReadResult, Error> {
        let kind = RequestKind::Read(proto::Read {
            source: Some(convert::source_ref(source)),
            queue_index,
            from: Some(convert::start_at(from)),
            max_messages,
            max_bytes: READ_BYTES_MAX,
            over_gaps: true,
        });
        match self.ask(kind).await? {
            (ReplyKind::Read(read), deliveries) => {
                let mut messages = unpack_all(&deliveries)?;
                let mut resume = Offset(read.resume);
                // The server sends whole batches: what lies before or beyond was not asked for.
                if let StartAt::Offset(first) = from {
                    messages.retain(|received| received.offset >= first);
                }
                if let Some(beyond) = messages.get(max_messages as usize) {
                    resume = beyond.offset;
                    messages.truncate(max_messages as usize);
                }
                let gaps = read.gaps.iter().map(convert::gap);
                let gaps = gaps.filter(|gap| gap.from < resume).collect();
                Ok(ReadResult {
                    start: Offset(read.start),
                    next: Offset(read.next),
                    resume,
                    messages,
                    gaps,
                })
            }
            _ => Err(unfitting()),
        }
    }

    /// A page of stored messages by key and time.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`; `INVALID_ARGUMENT` for a page token that no server gave; `OVERLOADED` while
    /// many searches wait.
    pub async fn find(&self, find: &Find) -> Result<FoundPage, Error> {
        let bound = |time: Timestamp, none: i64| (time.0 != none).then_some(time.0);
        let kind = RequestKind::FindMessages(proto::FindMessages {
            topic: Some(convert::topic_ref(&find.topic)),
            key: find.key.clone().map(Into::into),
            from_ms: bound(find.from, i64::MIN),
            to_ms: bound(find.to, i64::MAX),
            oldest_first: find.order == Order::OldestFirst,
            page: find.page.clone().unwrap_or_default(),
            max_messages: find.max_messages,
            max_bytes: READ_BYTES_MAX,
        });
        match self.ask(kind).await? {
            (ReplyKind::Found(found), deliveries) => {
                let mut messages = Vec::new();
                for delivery in &deliveries {
                    let mut batch = unpack(delivery)?;
                    if find.order == Order::NewestFirst {
                        batch.reverse();
                    }
                    messages.append(&mut batch);
                }
                Ok(FoundPage {
                    messages,
                    next: Some(found.page).filter(|page| !page.is_empty()),
                    unreadable: found.unreadable,
                })
            }
            _ => Err(unfitting()),
        }
    }

    /// One stored message by its id.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`; `MESSAGE_NOT_FOUND` if the topic doesn't hold it, or no longer;
    /// `QUARANTINED` if it is damaged.
    pub async fn message(&self, topic: &TopicRef, id: MessageId) -> Result<Received, Error> {
        let kind = RequestKind::GetMessage(proto::GetMessage {
            topic: Some(convert::topic_ref(topic)),
            shard: id.batch.shard.0,
            seq: id.batch.seq.0,
            record: id.record.into(),
        });
        match self.ask(kind).await? {
            (ReplyKind::Found(_), deliveries) => unpack_all(&deliveries)?
                .into_iter()
                .find(|received| received.message_id == id)
                .ok_or_else(unfitting),
            _ => Err(unfitting()),
        }
    }

    async fn ask_done(&self, kind: RequestKind) -> Result<(), Error> {
        match self.ask(kind).await? {
            (ReplyKind::Done(_), _) => Ok(()),
            _ => Err(unfitting()),
        }
    }
}

fn create_view(create: &CreateView, dry_run: bool) -> proto::CreateView {
    proto::CreateView {
        view: Some(convert::view_ref(&create.view)),
        bindings: create.bindings.iter().map(convert::binding).collect(),
        dry_run,
    }
}

fn bind(group: &GroupRef, topic: &TopicRef, binding: &BindingSpec, dry_run: bool) -> proto::Bind {
    proto::Bind {
        group: Some(convert::group_ref(group)),
        topic: Some(convert::topic_ref(topic)),
        binding: Some(convert::binding(binding)),
        dry_run,
    }
}

fn unpack_all(deliveries: &[Delivery]) -> Result<Vec<Received>, Error> {
    let mut messages = Vec::new();
    for delivery in deliveries {
        messages.extend(unpack(delivery)?);
    }
    Ok(messages)
}

pub(crate) fn unfitting() -> Error {
    Error::new(
        code::PROTOCOL,
        "the server's answer doesn't fit the request",
    )
    .hint("client and server may be of different versions")
}
