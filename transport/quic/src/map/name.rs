//! Names, references and where a cursor begins.

use tidegate_broker::request::StartAt;
use tidegate_broker::{GroupRef, PluginRef, Refusal, SourceRef, ViewRef};
use tidegate_model::{Name, NameError, Offset, Timestamp, TopicRef, code};
use tidegate_wire::proto;

/// How a name is checked: [`Name::new`] for what is to be made, [`Name::reference`] for what is there.
pub(super) type Check = fn(&str) -> Result<Name, NameError>;

fn name(text: &str, what: &str, check: Check) -> Result<Name, Refusal> {
    check(text).map_err(|error| Refusal::new(code::INVALID_NAME, format!("{what}: {error}")))
}

pub(super) fn namespace(text: &str) -> Result<Name, Refusal> {
    if text.is_empty() {
        return Ok(Name::default_namespace());
    }
    name(text, "namespace", Name::new)
}

pub(super) fn client_name(text: &str) -> Result<Name, Refusal> {
    name(text, "client", Name::new)
}

pub(super) fn part<T>(part: Option<T>, what: &str) -> Result<T, Refusal> {
    part.ok_or_else(|| Refusal::new(code::PROTOCOL, format!("the request has no {what}")))
}

pub(super) fn topic_checked(
    topic: Option<proto::TopicRef>,
    check: Check,
) -> Result<TopicRef, Refusal> {
    let topic = part(topic, "topic")?;
    Ok(TopicRef {
        namespace: namespace(&topic.namespace)?,
        topic: name(&topic.topic, "topic", check)?,
    })
}

pub(crate) fn topic(reference: Option<proto::TopicRef>) -> Result<TopicRef, Refusal> {
    topic_checked(reference, Name::reference)
}

pub(super) fn group_checked(
    group: Option<proto::GroupRef>,
    check: Check,
) -> Result<GroupRef, Refusal> {
    let group = part(group, "group")?;
    Ok(GroupRef {
        namespace: namespace(&group.namespace)?,
        group: name(&group.group, "group", check)?,
    })
}

pub(crate) fn group(reference: Option<proto::GroupRef>) -> Result<GroupRef, Refusal> {
    group_checked(reference, Name::reference)
}

pub(super) fn view_checked(view: Option<proto::ViewRef>, check: Check) -> Result<ViewRef, Refusal> {
    let view = part(view, "view")?;
    Ok(ViewRef {
        topic: topic(view.topic)?,
        view: name(&view.view, "view", check)?,
    })
}

pub(super) fn plugin_checked(
    plugin: Option<proto::PluginRef>,
    check: Check,
) -> Result<PluginRef, Refusal> {
    let plugin = part(plugin, "plugin")?;
    Ok(PluginRef {
        namespace: namespace(&plugin.namespace)?,
        plugin: name(&plugin.plugin, "plugin", check)?,
        version: name(&plugin.version, "plugin version", check)?,
    })
}

pub(crate) fn source(source: Option<proto::SourceRef>) -> Result<SourceRef, Refusal> {
    let source = part(source, "source")?;
    let topic = topic(source.topic)?;
    if source.view.is_empty() {
        return Ok(SourceRef::Topic(topic));
    }
    Ok(SourceRef::View(ViewRef {
        topic,
        view: name(&source.view, "view", Name::reference)?,
    }))
}

pub(crate) fn start(start: Option<proto::StartAt>) -> StartAt {
    match start.and_then(|start| start.kind) {
        Some(proto::StartKind::Earliest(_)) => StartAt::Earliest,
        Some(proto::StartKind::TimeMs(ms)) => StartAt::Time(Timestamp(ms)),
        Some(proto::StartKind::Offset(offset)) => StartAt::Offset(Offset(offset)),
        Some(proto::StartKind::Latest(_)) | None => StartAt::Latest,
    }
}

pub(super) fn topic_out(topic: &TopicRef) -> proto::TopicRef {
    proto::TopicRef {
        namespace: topic.namespace.to_string(),
        topic: topic.topic.to_string(),
    }
}

pub(super) fn group_out(group: &GroupRef) -> proto::GroupRef {
    proto::GroupRef {
        namespace: group.namespace.to_string(),
        group: group.group.to_string(),
    }
}

pub(super) fn view_out(view: &ViewRef) -> proto::ViewRef {
    proto::ViewRef {
        topic: Some(topic_out(&view.topic)),
        view: view.view.to_string(),
    }
}

pub(super) fn plugin_out(plugin: &PluginRef) -> proto::PluginRef {
    proto::PluginRef {
        namespace: plugin.namespace.to_string(),
        plugin: plugin.plugin.to_string(),
        version: plugin.version.to_string(),
    }
}

pub(super) fn source_out(source: &SourceRef) -> proto::SourceRef {
    match source {
        SourceRef::Topic(topic) => proto::SourceRef {
            topic: Some(topic_out(topic)),
            view: String::new(),
        },
        SourceRef::View(view) => proto::SourceRef {
            topic: Some(topic_out(&view.topic)),
            view: view.view.to_string(),
        },
    }
}
