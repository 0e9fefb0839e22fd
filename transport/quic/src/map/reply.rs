//! From the broker's replies to what travels.

use bytes::Bytes;
use tidegate_broker::reply::{
    BackupBegun, ClientInfo, CursorInfo, CursorMove, GroupInfo, PluginFailure, PluginInfo,
    QueueInfo, Reply, SubscriptionInfo, TopicInfo, ViewInfo,
};
use tidegate_broker::request::{BindingSpec, OnError, RetryPolicy};
use tidegate_model::{Code, Name, Role};
use tidegate_wire::proto::{self, ReplyKind};

use super::name::{group_out, plugin_out, source_out, topic_out, view_out};

/// The head of the answer; `None` for the kinds that carry batches, which are written apart.
pub(crate) fn reply(reply: Reply) -> Option<ReplyKind> {
    Some(match reply {
        Reply::Done => ReplyKind::Done(proto::Empty {}),
        Reply::Topic(info) => ReplyKind::Topic(topic(&info)),
        Reply::Topics(infos) => ReplyKind::Topics(proto::Topics {
            topics: infos.iter().map(topic).collect(),
        }),
        Reply::Group(info) => ReplyKind::Group(group(info)),
        Reply::Groups(infos) => ReplyKind::Groups(proto::Groups {
            groups: infos.into_iter().map(group).collect(),
        }),
        Reply::Reset(moves) => ReplyKind::Reset(proto::CursorMoves {
            moves: moves.iter().map(cursor_move).collect(),
        }),
        Reply::View(info) => ReplyKind::View(view(info)),
        Reply::Views(infos) => ReplyKind::Views(proto::Views {
            views: infos.into_iter().map(view).collect(),
        }),
        Reply::Plugin(info) => ReplyKind::Plugin(plugin(info)),
        Reply::Plugins(infos) => ReplyKind::Plugins(proto::Plugins {
            plugins: infos.into_iter().map(plugin).collect(),
        }),
        Reply::Settled(results) => ReplyKind::Settled(proto::Settled {
            ticket: 0,
            results: results.into_iter().map(code).collect(),
            refused: None,
        }),
        Reply::Server(info) => ReplyKind::Server(proto::Server {
            version: info.version,
            uptime_ms: info.uptime_ms,
            shards: info.shards,
        }),
        Reply::BackupBegun(begun) => ReplyKind::BackupBegun(backup_begun(begun)),
        Reply::BackupFiles(files) => ReplyKind::BackupFiles(proto::BackupFileList {
            files: files.iter().map(Into::into).collect(),
        }),
        Reply::BackupPiece(piece) => ReplyKind::BackupPiece(proto::BackupPiece {
            bytes: piece.bytes,
            unreadable: piece.unreadable,
        }),
        Reply::Invited(invited) => ReplyKind::Invited(proto::Invited {
            token: invited.token,
            expires_ms: invited.expires.0,
        }),
        Reply::Clients(page) => ReplyKind::Clients(proto::Clients {
            clients: page.clients.into_iter().map(client).collect(),
            more: page.more,
        }),
        Reply::Received(_)
        | Reply::Read(_)
        | Reply::Found(_)
        | Reply::Producer(_)
        | Reply::Published(_) => {
            return None;
        }
    })
}

fn client(info: ClientInfo) -> proto::Client {
    proto::Client {
        name: info.name.to_string(),
        roles: info.roles.iter().map(Role::number).collect(),
        namespaces: info.namespaces.iter().map(Name::to_string).collect(),
        public_key: info.public_key.map(|key| Bytes::copy_from_slice(&key)),
        since_ms: info.since.0,
        revoked_ms: info.revoked.map(|at| at.0),
        expires_ms: info.expires.map(|at| at.0),
    }
}

fn backup_begun(begun: BackupBegun) -> proto::BackupBegun {
    let range = |(from, to)| proto::LogRange { from, to };
    proto::BackupBegun {
        backup: begun.backup,
        node: begun.node,
        began_ms: begun.began.0,
        durable: begun.durable,
        snapshot: begun.snapshot,
        snapshot_position: begun.snapshot_position,
        format: begun.format,
        files: begun.files,
        damaged: begun.damaged.into_iter().map(range).collect(),
        more_damaged: begun.more_damaged,
    }
}

/// 0 or the code.
fn code(result: Result<(), Code>) -> u32 {
    result.map_or_else(|code| u32::from(code.0), |()| 0)
}

/// A queue as it travels.
pub(crate) fn queue(info: &QueueInfo) -> proto::Queue {
    proto::Queue {
        queue: info.queue.0,
        shard: info.shard.0,
        start: info.start.0,
        next: info.next.0,
        bytes: info.bytes,
        oldest_ms: info.oldest.map(|oldest| oldest.0),
    }
}

fn topic(info: &TopicInfo) -> proto::Topic {
    proto::Topic {
        topic: Some(topic_out(&info.topic)),
        layout_version: info.layout_version,
        created_ms: info.created.0,
        queues: info.queues.iter().map(queue).collect(),
        settings: Some((&info.settings).into()),
    }
}

fn group(info: GroupInfo) -> proto::Group {
    proto::Group {
        group: Some(group_out(&info.group)),
        policy: Some(policy(info.policy)),
        subscriptions: info.subscriptions.into_iter().map(subscription).collect(),
    }
}

fn policy(policy: RetryPolicy) -> proto::RetryPolicy {
    proto::RetryPolicy {
        max_attempts: u32::from(policy.max_attempts),
        backoff_ms: policy.backoff_ms,
    }
}

fn subscription(info: SubscriptionInfo) -> proto::Subscription {
    proto::Subscription {
        source: Some(source_out(&info.source)),
        binding: info.binding.map(binding),
        members: info.members,
        queues: info.queues.iter().map(cursor).collect(),
    }
}

fn cursor(info: &CursorInfo) -> proto::Cursor {
    proto::Cursor {
        queue: info.queue.0,
        cursor: info.cursor.0,
        next: info.next.0,
        leased: info.leased,
        parked: info.parked,
        stopped: info.stopped.map_or(0, |code| code.0.into()),
    }
}

fn cursor_move(moved: &CursorMove) -> proto::CursorMove {
    proto::CursorMove {
        queue: moved.queue.0,
        from: moved.from.0,
        to: moved.to.0,
    }
}

fn view(info: ViewInfo) -> proto::View {
    proto::View {
        view: Some(view_out(&info.view)),
        bindings: info.bindings.into_iter().map(binding).collect(),
        created_ms: info.created.0,
    }
}

fn binding(spec: BindingSpec) -> proto::BindingSpec {
    let on_error = match spec.on_error {
        OnError::DeadLetter => proto::OnError::DeadLetter,
        OnError::Pass => proto::OnError::Pass,
        OnError::Skip => proto::OnError::Skip,
        OnError::Retry => proto::OnError::Retry,
        OnError::Stop => proto::OnError::Stop,
    };
    proto::BindingSpec {
        plugin: Some(plugin_out(&spec.plugin)),
        config: spec.config,
        on_error: on_error.into(),
    }
}

fn plugin(info: PluginInfo) -> proto::Plugin {
    proto::Plugin {
        plugin: Some(plugin_out(&info.plugin)),
        digest: Bytes::copy_from_slice(&info.digest),
        world: info.world,
        size: info.size,
        deployed_ms: info.deployed.0,
        bound_to: info.bound_to,
        failures: info.failures.into_iter().map(plugin_failure).collect(),
    }
}

fn plugin_failure(failure: PluginFailure) -> proto::PluginFailure {
    proto::PluginFailure {
        at_ms: failure.at.0,
        code: u32::from(failure.code.0),
        message: failure.message,
        topic: failure.topic,
        queue_index: failure.queue_index,
        offset: failure.offset.0,
        shard: failure.message_id.batch.shard.0,
        seq: failure.message_id.batch.seq.0,
        record: u32::from(failure.message_id.record),
    }
}
