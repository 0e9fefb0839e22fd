//! What is said of things that aren't there, or can't be made.

use tidegate_model::{Code, Name, SettingsError, TopicRef, code};

use crate::reference::{GroupRef, PluginRef, ViewRef};
use crate::refusal::Refusal;

pub(crate) fn no_topic(topic: &TopicRef) -> Refusal {
    Refusal::new(
        code::TOPIC_NOT_FOUND,
        format!("there is no topic {topic} in namespace {}", topic.namespace),
    )
}

pub(crate) fn no_group(group: &GroupRef) -> Refusal {
    Refusal::new(
        code::GROUP_NOT_FOUND,
        format!(
            "there is no consumer group {group} in namespace {}",
            group.namespace
        ),
    )
    .hint(format!("tidegate group create {}", group.group))
}

pub(crate) fn no_view(view: &ViewRef) -> Refusal {
    Refusal::new(
        code::VIEW_NOT_FOUND,
        format!("topic {} has no view {}", view.topic, view.view),
    )
}

pub(crate) fn no_plugin(plugin: &PluginRef) -> Refusal {
    Refusal::new(
        code::PLUGIN_NOT_FOUND,
        format!(
            "there is no plugin {plugin} in namespace {}",
            plugin.namespace
        ),
    )
}

pub(crate) fn no_binding(group: &GroupRef, topic: &TopicRef) -> Refusal {
    Refusal::new(
        code::BINDING_NOT_FOUND,
        format!("no plugin is bound to group {group} on topic {topic}"),
    )
}

pub(crate) fn settings_refused(topic: &TopicRef, error: &SettingsError) -> Refusal {
    argument(format!("topic {topic}: {error}")).hint(format!(
        "tidegate topic set {} --retain 72h --retain-bytes 10GiB",
        topic.topic
    ))
}

pub(super) fn exists(code: Code, kind: &str, name: &dyn core::fmt::Display) -> Refusal {
    Refusal::new(code, format!("{kind} {name} exists already"))
}

pub(super) fn full(kind: &str, max: usize) -> Refusal {
    Refusal::new(
        code::LIMIT_REACHED,
        format!("this node holds {max} {kind}, as many as it may"),
    )
    .hint(format!("Remove {kind} that are no longer used."))
}

pub(super) fn argument(message: String) -> Refusal {
    Refusal::new(code::INVALID_ARGUMENT, message)
}

pub(super) fn users_name(kind: &str, name: &Name) -> Result<(), Refusal> {
    if name.is_system() {
        return Err(Refusal::new(
            code::INVALID_NAME,
            format!("the {kind} name {name} begins with '%': the broker gives such names"),
        ));
    }
    Ok(())
}
