//! Protobuf messages shared by commands and snapshots. Fields are only ever added; numbers are
//! never used again.

use bytes::Bytes;
use tidegate_model::{Keep, Name, Role, Roles, TopicChange, TopicRef, TopicSettings};

use crate::reference::{GroupRef, PluginRef, SourceRef, ViewRef};
use crate::request::{BindingSpec, OnError, RetryPolicy};

/// Something in a namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Named {
    #[prost(string, tag = "1")]
    pub(super) namespace: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NamedView {
    #[prost(message, optional, tag = "1")]
    pub(super) topic: Option<Named>,
    #[prost(string, tag = "2")]
    pub(super) view: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NamedPlugin {
    #[prost(message, optional, tag = "1")]
    pub(super) plugin: Option<Named>,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

/// A topic, or with a view's name that view of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NamedSource {
    #[prost(message, optional, tag = "1")]
    pub(super) topic: Option<Named>,
    #[prost(string, optional, tag = "2")]
    pub(super) view: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Policy {
    #[prost(uint32, tag = "1")]
    pub(super) max_attempts: u32,
    #[prost(uint32, repeated, tag = "2")]
    pub(super) backoff_ms: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Spec {
    #[prost(message, optional, tag = "1")]
    pub(super) plugin: Option<NamedPlugin>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) config: Bytes,
    #[prost(uint32, tag = "3")]
    pub(super) on_error: u32,
}

/// What a topic keeps; 0 is no bound.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Settings {
    #[prost(uint64, tag = "1")]
    pub(super) retain_ms: u64,
    #[prost(uint64, tag = "2")]
    pub(super) retain_bytes: u64,
    #[prost(bool, tag = "3")]
    pub(super) retain_consumed: bool,
    #[prost(bool, tag = "4")]
    pub(super) compact: bool,
    /// Absent in what was written before there was compaction.
    #[prost(uint64, optional, tag = "5")]
    pub(super) tombstone_ms: Option<u64>,
}

/// What of it changes; 0 is no bound.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Change {
    #[prost(uint64, optional, tag = "1")]
    pub(super) retain_ms: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) retain_bytes: Option<u64>,
    #[prost(bool, optional, tag = "3")]
    pub(super) retain_consumed: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub(super) compact: Option<bool>,
    #[prost(uint64, optional, tag = "5")]
    pub(super) tombstone_ms: Option<u64>,
}

/// A queue and an offset in it.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct At {
    #[prost(uint64, tag = "1")]
    pub(super) queue: u64,
    #[prost(uint64, tag = "2")]
    pub(super) offset: u64,
}

/// What is wrong with a message that decoded as Protobuf.
pub(super) type Wrong = String;

/// A field that has to be there.
pub(super) fn need<T>(field: Option<T>, name: &str) -> Result<T, Wrong> {
    field.ok_or_else(|| format!("it lacks {name}"))
}

/// A number that has to fit.
pub(super) fn narrow<T: TryFrom<u32>>(value: u32, name: &str) -> Result<T, Wrong> {
    T::try_from(value).map_err(|_| format!("{name} is {value}"))
}

/// SHA-256.
pub(super) fn digest(bytes: &[u8]) -> Result<[u8; 32], Wrong> {
    bytes
        .try_into()
        .map_err(|_| format!("a digest has {} bytes", bytes.len()))
}

/// A client's public key.
pub(super) fn public_key(bytes: &[u8]) -> Result<[u8; 32], Wrong> {
    bytes
        .try_into()
        .map_err(|_| format!("a public key has {} bytes", bytes.len()))
}

/// A name that stands by itself.
pub(super) fn read_name(text: &str) -> Result<Name, Wrong> {
    name(text)
}

/// Names that stand by themselves.
pub(super) fn read_names(texts: &[String]) -> Result<Vec<Name>, Wrong> {
    texts.iter().map(|text| name(text)).collect()
}

pub(super) fn roles(roles: Roles) -> Vec<u32> {
    roles.iter().map(Role::number).collect()
}

/// One that this version doesn't know is refused, not passed over: it may be what keeps a client out.
pub(super) fn read_roles(numbers: &[u32]) -> Result<Roles, Wrong> {
    numbers
        .iter()
        .map(|number| {
            Role::from_number(*number).ok_or_else(|| format!("a role of a client is {number}"))
        })
        .collect()
}

fn name(text: &str) -> Result<Name, Wrong> {
    Name::reference(text).map_err(|error| error.to_string())
}

pub(super) fn topic(topic: &TopicRef) -> Option<Named> {
    Some(Named {
        namespace: topic.namespace.to_string(),
        name: topic.topic.to_string(),
    })
}

pub(super) fn read_topic(named: Option<Named>) -> Result<TopicRef, Wrong> {
    let named = need(named, "a topic")?;
    Ok(TopicRef {
        namespace: name(&named.namespace)?,
        topic: name(&named.name)?,
    })
}

pub(super) fn group(group: &GroupRef) -> Option<Named> {
    Some(Named {
        namespace: group.namespace.to_string(),
        name: group.group.to_string(),
    })
}

pub(super) fn read_group(named: Option<Named>) -> Result<GroupRef, Wrong> {
    let named = need(named, "a group")?;
    Ok(GroupRef {
        namespace: name(&named.namespace)?,
        group: name(&named.name)?,
    })
}

pub(super) fn view(view: &ViewRef) -> Option<NamedView> {
    Some(NamedView {
        topic: topic(&view.topic),
        view: view.view.to_string(),
    })
}

pub(super) fn read_view(named: Option<NamedView>) -> Result<ViewRef, Wrong> {
    let named = need(named, "a view")?;
    Ok(ViewRef {
        topic: read_topic(named.topic)?,
        view: name(&named.view)?,
    })
}

pub(super) fn plugin(plugin: &PluginRef) -> Option<NamedPlugin> {
    Some(NamedPlugin {
        plugin: Some(Named {
            namespace: plugin.namespace.to_string(),
            name: plugin.plugin.to_string(),
        }),
        version: plugin.version.to_string(),
    })
}

pub(super) fn read_plugin(named: Option<NamedPlugin>) -> Result<PluginRef, Wrong> {
    let named = need(named, "a plugin")?;
    let plugin = need(named.plugin, "a plugin's name")?;
    Ok(PluginRef {
        namespace: name(&plugin.namespace)?,
        plugin: name(&plugin.name)?,
        version: name(&named.version)?,
    })
}

pub(super) fn source(source: &SourceRef) -> Option<NamedSource> {
    Some(NamedSource {
        topic: topic(source.topic()),
        view: match source {
            SourceRef::Topic(_) => None,
            SourceRef::View(view) => Some(view.view.to_string()),
        },
    })
}

pub(super) fn read_source(named: Option<NamedSource>) -> Result<SourceRef, Wrong> {
    let named = need(named, "a source")?;
    let topic = read_topic(named.topic)?;
    Ok(match named.view {
        None => SourceRef::Topic(topic),
        Some(view) => SourceRef::View(ViewRef {
            topic,
            view: name(&view)?,
        }),
    })
}

pub(super) fn policy(policy: &RetryPolicy) -> Option<Policy> {
    Some(Policy {
        max_attempts: u32::from(policy.max_attempts),
        backoff_ms: policy.backoff_ms.clone(),
    })
}

pub(super) fn read_policy(policy: Option<Policy>) -> Result<RetryPolicy, Wrong> {
    let policy = need(policy, "a retry policy")?;
    Ok(RetryPolicy {
        max_attempts: narrow(policy.max_attempts, "max_attempts")?,
        backoff_ms: policy.backoff_ms,
    })
}

pub(super) fn settings(settings: &TopicSettings) -> Settings {
    Settings {
        retain_ms: settings.retain_ms.number(),
        retain_bytes: settings.retain_bytes.number(),
        retain_consumed: settings.retain_consumed,
        compact: settings.compact,
        tombstone_ms: Some(settings.tombstone_ms.number()),
    }
}

/// A topic from before there were settings has the default ones.
pub(super) fn read_settings(settings: Option<Settings>) -> TopicSettings {
    let Some(settings) = settings else {
        return TopicSettings::default();
    };
    TopicSettings {
        retain_ms: Keep::from_number(settings.retain_ms),
        retain_bytes: Keep::from_number(settings.retain_bytes),
        retain_consumed: settings.retain_consumed,
        compact: settings.compact,
        tombstone_ms: settings
            .tombstone_ms
            .map_or(TopicSettings::default().tombstone_ms, Keep::from_number),
    }
}

pub(super) fn change(change: &TopicChange) -> Change {
    Change {
        retain_ms: change.retain_ms.map(Keep::number),
        retain_bytes: change.retain_bytes.map(Keep::number),
        retain_consumed: change.retain_consumed,
        compact: change.compact,
        tombstone_ms: change.tombstone_ms.map(Keep::number),
    }
}

pub(super) fn read_change(change: Option<Change>) -> Result<TopicChange, Wrong> {
    let change = need(change, "a change")?;
    Ok(TopicChange {
        retain_ms: change.retain_ms.map(Keep::from_number),
        retain_bytes: change.retain_bytes.map(Keep::from_number),
        retain_consumed: change.retain_consumed,
        compact: change.compact,
        tombstone_ms: change.tombstone_ms.map(Keep::from_number),
    })
}

pub(super) fn on_error(number: u32) -> Result<OnError, Wrong> {
    [
        OnError::DeadLetter,
        OnError::Pass,
        OnError::Skip,
        OnError::Retry,
        OnError::Stop,
    ]
    .into_iter()
    .find(|policy| *policy as u32 == number)
    .ok_or_else(|| format!("an on-error policy is {number}"))
}

pub(super) fn spec(spec: &BindingSpec) -> Spec {
    Spec {
        plugin: plugin(&spec.plugin),
        config: spec.config.clone(),
        on_error: spec.on_error as u32,
    }
}

pub(super) fn read_spec(spec: Spec) -> Result<BindingSpec, Wrong> {
    Ok(BindingSpec {
        plugin: read_plugin(spec.plugin)?,
        config: spec.config,
        on_error: on_error(spec.on_error)?,
    })
}
