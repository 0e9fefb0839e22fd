//! What is answered.

use tidegate_model::{
    BatchId, Code, MessageId, Name, Offset, QueueId, Seq, ShardId, Timestamp, TopicRef,
    TopicSettings, code,
};
use tidegate_wire::proto;

use super::incomplete;
use crate::Error;
use crate::catalog::{
    BindingSpec, CursorInfo, CursorMove, GroupInfo, GroupRef, OnError, PluginFailure, PluginInfo,
    PluginRef, QueueInfo, RetryPolicy, ServerInfo, Source, SubscriptionInfo, TopicInfo, ViewInfo,
    ViewRef,
};
use crate::message::{Gap, Level};

/// A name that the server gave; it may be one of the broker's own.
pub(crate) fn name(text: &str) -> Result<Name, Error> {
    Name::reference(text).map_err(|error| {
        Error::new(
            code::PROTOCOL,
            format!("the server's answer has a bad name: {error}"),
        )
    })
}

pub(crate) fn gap(gap: &proto::Gap) -> Gap {
    Gap {
        from: Offset(gap.from),
        to: Offset(gap.to),
        code: u16::try_from(gap.code).map_or(code::INTERNAL, Code),
    }
}

pub(crate) fn topic_info(info: proto::Topic) -> Result<TopicInfo, Error> {
    Ok(TopicInfo {
        topic: topic_ref(info.topic)?,
        layout_version: info.layout_version,
        created: Timestamp(info.created_ms),
        queues: info.queues.iter().map(queue_info).collect(),
        settings: settings(&info.settings.unwrap_or_default()),
    })
}

/// What an older server leaves out is as it behaves: it keeps everything.
fn settings(settings: &proto::TopicSettings) -> TopicSettings {
    let told = settings.change();
    TopicSettings {
        retain_ms: told.retain_ms.unwrap_or_default(),
        retain_bytes: told.retain_bytes.unwrap_or_default(),
        retain_consumed: told.retain_consumed.unwrap_or_default(),
        compact: told.compact.unwrap_or_default(),
        tombstone_ms: told.tombstone_ms.unwrap_or_default(),
    }
}

pub(crate) fn group_info(info: proto::Group) -> Result<GroupInfo, Error> {
    let group = info.group.ok_or_else(|| incomplete("group"))?;
    let policy = info.policy.ok_or_else(|| incomplete("retry policy"))?;
    Ok(GroupInfo {
        group: GroupRef {
            namespace: name(&group.namespace)?,
            group: name(&group.group)?,
        },
        policy: RetryPolicy {
            max_attempts: u16::try_from(policy.max_attempts).unwrap_or(u16::MAX),
            backoff_ms: policy.backoff_ms,
        },
        subscriptions: info
            .subscriptions
            .into_iter()
            .map(subscription_info)
            .collect::<Result<_, _>>()?,
    })
}

pub(crate) fn cursor_move(moved: &proto::CursorMove) -> CursorMove {
    CursorMove {
        queue: QueueId(moved.queue),
        from: Offset(moved.from),
        to: Offset(moved.to),
    }
}

pub(crate) fn view_info(info: proto::View) -> Result<ViewInfo, Error> {
    let view = info.view.ok_or_else(|| incomplete("view"))?;
    Ok(ViewInfo {
        view: ViewRef {
            topic: topic_ref(view.topic)?,
            view: name(&view.view)?,
        },
        bindings: info
            .bindings
            .into_iter()
            .map(binding)
            .collect::<Result<_, _>>()?,
        created: Timestamp(info.created_ms),
    })
}

pub(crate) fn plugin_info(info: proto::Plugin) -> Result<PluginInfo, Error> {
    Ok(PluginInfo {
        plugin: plugin_ref(info.plugin)?,
        digest: info
            .digest
            .as_ref()
            .try_into()
            .map_err(|_| incomplete("digest of 32 bytes"))?,
        world: info.world,
        size: info.size,
        deployed: Timestamp(info.deployed_ms),
        bound_to: info.bound_to,
        failures: info
            .failures
            .into_iter()
            .map(plugin_failure)
            .collect::<Result<_, _>>()?,
    })
}

fn plugin_failure(failure: proto::PluginFailure) -> Result<PluginFailure, Error> {
    let narrow = |_| incomplete("failure with a code and a record of 16 bits");
    Ok(PluginFailure {
        at: Timestamp(failure.at_ms),
        code: Code(u16::try_from(failure.code).map_err(narrow)?),
        message: failure.message,
        topic: failure.topic,
        queue_index: failure.queue_index,
        offset: Offset(failure.offset),
        message_id: MessageId {
            batch: BatchId {
                shard: ShardId(failure.shard),
                seq: Seq(failure.seq),
            },
            record: u16::try_from(failure.record).map_err(narrow)?,
        },
    })
}

pub(crate) fn server_info(info: proto::Server) -> ServerInfo {
    ServerInfo {
        version: info.version,
        uptime_ms: info.uptime_ms,
        shards: info.shards,
    }
}

/// A level from the future survives at least what the highest known one does.
pub(crate) fn level(number: u8) -> Level {
    match number {
        0 => Level::Memory,
        1 => Level::Os,
        2 => Level::Disk,
        _ => Level::Quorum,
    }
}

/// Why delivery is stopped. A number beyond all codes still says that it is.
fn stopped(code: u32) -> Option<Code> {
    (code != 0).then(|| u16::try_from(code).map_or(code::INTERNAL, Code))
}

fn topic_ref(topic: Option<proto::TopicRef>) -> Result<TopicRef, Error> {
    let topic = topic.ok_or_else(|| incomplete("topic"))?;
    Ok(TopicRef {
        namespace: name(&topic.namespace)?,
        topic: name(&topic.topic)?,
    })
}

fn plugin_ref(plugin: Option<proto::PluginRef>) -> Result<PluginRef, Error> {
    let plugin = plugin.ok_or_else(|| incomplete("plugin"))?;
    Ok(PluginRef {
        namespace: name(&plugin.namespace)?,
        plugin: name(&plugin.plugin)?,
        version: name(&plugin.version)?,
    })
}

fn queue_info(queue: &proto::Queue) -> QueueInfo {
    QueueInfo {
        queue: QueueId(queue.queue),
        shard: ShardId(queue.shard),
        start: Offset(queue.start),
        next: Offset(queue.next),
        bytes: queue.bytes,
        oldest: queue.oldest_ms.map(Timestamp),
    }
}

fn subscription_info(info: proto::Subscription) -> Result<SubscriptionInfo, Error> {
    let source = info.source.ok_or_else(|| incomplete("source"))?;
    let topic = topic_ref(source.topic)?;
    let source = if source.view.is_empty() {
        Source::Topic(topic)
    } else {
        Source::View(ViewRef {
            topic,
            view: name(&source.view)?,
        })
    };
    Ok(SubscriptionInfo {
        source,
        binding: info.binding.map(binding).transpose()?,
        members: info.members,
        queues: info
            .queues
            .iter()
            .map(|cursor| CursorInfo {
                queue: QueueId(cursor.queue),
                cursor: Offset(cursor.cursor),
                next: Offset(cursor.next),
                leased: cursor.leased,
                parked: cursor.parked,
                stopped: stopped(cursor.stopped),
            })
            .collect(),
    })
}

fn binding(spec: proto::BindingSpec) -> Result<BindingSpec, Error> {
    let on_error = match proto::OnError::try_from(spec.on_error) {
        Ok(proto::OnError::DeadLetter) => OnError::DeadLetter,
        Ok(proto::OnError::Pass) => OnError::Pass,
        Ok(proto::OnError::Skip) => OnError::Skip,
        Ok(proto::OnError::Retry) => OnError::Retry,
        Ok(proto::OnError::Stop) => OnError::Stop,
        Err(_) => return Err(incomplete("on-error policy that this version knows")),
    };
    Ok(BindingSpec {
        plugin: plugin_ref(spec.plugin)?,
        config: spec.config,
        on_error,
    })
}
