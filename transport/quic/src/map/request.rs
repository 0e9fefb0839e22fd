//! From what travels to the broker's requests.

use tidegate_broker::limit::CLIENT_NAMESPACES_MAX;
use tidegate_broker::request::{
    BackupEnd, BackupFiles, BackupRead, Bind, BindingSpec, CreateGroup, CreateTopic, CreateView,
    DeployPlugin, FindMessages, GetMessage, InviteClient, List, ListClients, OnError, OneGroup,
    OnePlugin, OneTopic, OneView, Read, Receive, ResetGroup, RetryPolicy, RevokeClient, Settle,
    Unbind, UpdateTopic,
};
use tidegate_broker::{Refusal, Request};
use tidegate_model::{
    BatchId, BookmarkError, MessageId, Name, Order, Role, Roles, Seq, ShardId, Timestamp, code,
};
use tidegate_wire::proto::{self, RequestKind};

use super::data::encoded_runs;
use super::name::{
    client_name, group, group_checked, namespace, part, plugin_checked, source, start, topic,
    topic_checked, view_checked,
};

/// The broker's request, or why there is none.
pub(crate) fn request(kind: RequestKind) -> Result<Request, Refusal> {
    Ok(match kind {
        RequestKind::CreateTopic(create) => Request::CreateTopic(CreateTopic {
            topic: topic_checked(create.topic, Name::new)?,
            queues: create.queues,
            settings: create.settings.unwrap_or_default().change(),
        }),
        RequestKind::UpdateTopic(update) => Request::UpdateTopic(UpdateTopic {
            topic: topic(update.topic)?,
            change: part(update.change, "change")?.change(),
        }),
        RequestKind::DeleteTopic(one) => Request::DeleteTopic(OneTopic {
            topic: topic(Some(one))?,
        }),
        RequestKind::DescribeTopic(one) => Request::DescribeTopic(OneTopic {
            topic: topic(Some(one))?,
        }),
        RequestKind::ListTopics(list) => Request::ListTopics(listed(&list)?),
        RequestKind::CreateGroup(create) => Request::CreateGroup(CreateGroup {
            group: group_checked(create.group, Name::new)?,
            policy: create.policy.map(policy).transpose()?.unwrap_or_default(),
        }),
        RequestKind::DeleteGroup(one) => Request::DeleteGroup(OneGroup {
            group: group(Some(one))?,
        }),
        RequestKind::DescribeGroup(one) => Request::DescribeGroup(OneGroup {
            group: group(Some(one))?,
        }),
        RequestKind::ListGroups(list) => Request::ListGroups(listed(&list)?),
        RequestKind::ResetGroup(reset) => Request::ResetGroup(ResetGroup {
            group: group(reset.group)?,
            source: source(reset.source)?,
            to: start(Some(part(reset.to, "place to reset to")?)),
            dry_run: reset.dry_run,
        }),
        RequestKind::CreateView(create) => dry(
            create.dry_run,
            Request::CreateView(CreateView {
                view: view_checked(create.view, Name::new)?,
                bindings: create
                    .bindings
                    .into_iter()
                    .map(binding)
                    .collect::<Result<_, _>>()?,
            }),
        ),
        RequestKind::DeleteView(one) => Request::DeleteView(one_view(one)?),
        RequestKind::DescribeView(one) => Request::DescribeView(one_view(one)?),
        RequestKind::ListViews(list) => Request::ListViews(listed(&list)?),
        RequestKind::DeployPlugin(deploy) => Request::DeployPlugin(DeployPlugin {
            plugin: plugin_checked(deploy.plugin, Name::new)?,
            component: deploy.component,
        }),
        RequestKind::RemovePlugin(one) => Request::RemovePlugin(one_plugin(one)?),
        RequestKind::DescribePlugin(one) => Request::DescribePlugin(one_plugin(one)?),
        RequestKind::ListPlugins(list) => Request::ListPlugins(listed(&list)?),
        RequestKind::Bind(bind) => dry(
            bind.dry_run,
            Request::Bind(Bind {
                group: group(bind.group)?,
                topic: topic(bind.topic)?,
                binding: binding(part(bind.binding, "binding")?)?,
            }),
        ),
        RequestKind::Unbind(unbind) => Request::Unbind(Unbind {
            group: group(unbind.group)?,
            topic: topic(unbind.topic)?,
        }),
        RequestKind::Receive(ask) => Request::Receive(Receive {
            group: group(ask.group)?,
            source: source(ask.source)?,
            start: start(ask.start),
            max_messages: ask.max_messages,
            max_bytes: ask.max_bytes,
            invisible_ms: ask.invisible_ms,
            wait_ms: ask.wait_ms,
        }),
        RequestKind::Settle(settle) => Request::Settle(Settle {
            group: group(settle.group)?,
            source: source(settle.source)?,
            runs: encoded_runs(&settle.runs)?,
        }),
        RequestKind::Read(read) => Request::Read(Read {
            source: source(read.source)?,
            queue_index: read.queue_index,
            from: start(Some(part(read.from, "place to read from")?)),
            max_messages: read.max_messages,
            max_bytes: read.max_bytes,
            over_gaps: read.over_gaps,
        }),
        RequestKind::DescribeServer(_) => Request::DescribeServer,
        RequestKind::FindMessages(find) => Request::FindMessages(find_messages(find)?),
        RequestKind::GetMessage(get) => Request::GetMessage(get_message(get)?),
        RequestKind::BackupBegin(_) => Request::BackupBegin,
        RequestKind::BackupFiles(files) => Request::BackupFiles(BackupFiles {
            backup: files.backup,
            first: files.first,
        }),
        RequestKind::BackupRead(read) => Request::BackupRead(BackupRead {
            backup: read.backup,
            file: read.file,
            at: read.at,
            len: read.len,
        }),
        RequestKind::BackupEnd(end) => Request::BackupEnd(BackupEnd { backup: end.backup }),
        RequestKind::InviteClient(invite) => Request::InviteClient(InviteClient {
            name: client_name(&invite.name)?,
            roles: roles(&invite.roles)?,
            namespaces: namespaces(&invite.namespaces)?,
            life_ms: invite.life_ms,
        }),
        RequestKind::ListClients(list) => Request::ListClients(ListClients {
            name: match &list.name[..] {
                "" => None,
                name => Some(client_name(name)?),
            },
            after: list.after.map(|key| public_key(&key)).transpose()?,
            revoked: list.revoked,
        }),
        RequestKind::RevokeClient(revoke) => Request::RevokeClient(RevokeClient {
            name: client_name(&revoke.name)?,
            public_key: revoke.public_key.map(|key| public_key(&key)).transpose()?,
        }),
    })
}

/// Bounded before anything is made of it.
fn namespaces(texts: &[String]) -> Result<Vec<Name>, Refusal> {
    if texts.len() > CLIENT_NAMESPACES_MAX {
        return Err(Refusal::new(
            code::INVALID_ARGUMENT,
            format!(
                "a client is kept to at most {CLIENT_NAMESPACES_MAX} namespaces; this invitation names {}",
                texts.len()
            ),
        ));
    }
    texts.iter().map(|text| namespace(text)).collect()
}

fn roles(numbers: &[u32]) -> Result<Roles, Refusal> {
    numbers
        .iter()
        .map(|number| {
            Role::from_number(*number).ok_or_else(|| {
                Refusal::new(
                    code::INVALID_ARGUMENT,
                    format!("this server knows no role of number {number}"),
                )
            })
        })
        .collect()
}

fn public_key(bytes: &[u8]) -> Result<[u8; 32], Refusal> {
    bytes.try_into().map_err(|_| {
        Refusal::new(
            code::INVALID_ARGUMENT,
            format!("a public key has 32 bytes; this one has {}", bytes.len()),
        )
    })
}

/// A request that only asks whether it would be carried out.
fn dry(is_dry: bool, request: Request) -> Request {
    if is_dry {
        Request::Check(Box::new(request))
    } else {
        request
    }
}

fn find_messages(find: proto::FindMessages) -> Result<FindMessages, Refusal> {
    let wrong = |error: BookmarkError| Refusal::new(code::INVALID_ARGUMENT, error.to_string());
    let page = match &find.page[..] {
        "" => None,
        page => Some(page.parse().map_err(wrong)?),
    };
    Ok(FindMessages {
        topic: topic(find.topic)?,
        key: find.key,
        from: Timestamp(find.from_ms.unwrap_or(i64::MIN)),
        to: Timestamp(find.to_ms.unwrap_or(i64::MAX)),
        order: if find.oldest_first {
            Order::OldestFirst
        } else {
            Order::NewestFirst
        },
        page,
        max_messages: find.max_messages,
        max_bytes: find.max_bytes,
    })
}

fn get_message(get: proto::GetMessage) -> Result<GetMessage, Refusal> {
    let record = u16::try_from(get.record).map_err(|_| {
        Refusal::new(
            code::INVALID_ARGUMENT,
            format!("a record is 0 to {}; this is {}", u16::MAX, get.record),
        )
    })?;
    Ok(GetMessage {
        topic: topic(get.topic)?,
        id: MessageId {
            batch: BatchId {
                shard: ShardId(get.shard),
                seq: Seq(get.seq),
            },
            record,
        },
    })
}

fn listed(list: &proto::Namespace) -> Result<List, Refusal> {
    Ok(List {
        namespace: namespace(&list.namespace)?,
    })
}

fn one_view(view: proto::ViewRef) -> Result<OneView, Refusal> {
    Ok(OneView {
        view: view_checked(Some(view), Name::reference)?,
    })
}

fn one_plugin(plugin: proto::PluginRef) -> Result<OnePlugin, Refusal> {
    Ok(OnePlugin {
        plugin: plugin_checked(Some(plugin), Name::reference)?,
    })
}

fn policy(policy: proto::RetryPolicy) -> Result<RetryPolicy, Refusal> {
    let max_attempts = u16::try_from(policy.max_attempts).map_err(|_| {
        Refusal::new(
            code::INVALID_ARGUMENT,
            format!(
                "max_attempts is 1 to {}; this is {}",
                u16::MAX,
                policy.max_attempts
            ),
        )
    })?;
    Ok(RetryPolicy {
        max_attempts,
        backoff_ms: policy.backoff_ms,
    })
}

fn binding(spec: proto::BindingSpec) -> Result<BindingSpec, Refusal> {
    let on_error = match proto::OnError::try_from(spec.on_error) {
        Ok(proto::OnError::DeadLetter) => OnError::DeadLetter,
        Ok(proto::OnError::Pass) => OnError::Pass,
        Ok(proto::OnError::Skip) => OnError::Skip,
        Ok(proto::OnError::Retry) => OnError::Retry,
        Ok(proto::OnError::Stop) => OnError::Stop,
        Err(_) => {
            return Err(Refusal::new(
                code::INVALID_ARGUMENT,
                format!(
                    "this server knows no on-error policy of number {}",
                    spec.on_error
                ),
            ));
        }
    };
    Ok(BindingSpec {
        plugin: plugin_checked(spec.plugin, Name::reference)?,
        config: spec.config,
        on_error,
    })
}
