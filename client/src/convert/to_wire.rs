//! What is asked.

use std::time::Duration;

use tidegate_model::{Name, TopicRef};
use tidegate_wire::proto;

use crate::catalog::{
    BindingSpec, GroupRef, OnError, PluginRef, RetryPolicy, Source, StartAt, ViewRef,
};

pub(crate) fn namespace(name: &Name) -> proto::Namespace {
    proto::Namespace {
        namespace: name.to_string(),
    }
}

pub(crate) fn topic_ref(topic: &TopicRef) -> proto::TopicRef {
    proto::TopicRef {
        namespace: topic.namespace.to_string(),
        topic: topic.topic.to_string(),
    }
}

pub(crate) fn group_ref(group: &GroupRef) -> proto::GroupRef {
    proto::GroupRef {
        namespace: group.namespace.to_string(),
        group: group.group.to_string(),
    }
}

pub(crate) fn view_ref(view: &ViewRef) -> proto::ViewRef {
    proto::ViewRef {
        topic: Some(topic_ref(&view.topic)),
        view: view.view.to_string(),
    }
}

pub(crate) fn plugin_ref(plugin: &PluginRef) -> proto::PluginRef {
    proto::PluginRef {
        namespace: plugin.namespace.to_string(),
        plugin: plugin.plugin.to_string(),
        version: plugin.version.to_string(),
    }
}

pub(crate) fn source_ref(source: &Source) -> proto::SourceRef {
    match source {
        Source::Topic(topic) => proto::SourceRef {
            topic: Some(topic_ref(topic)),
            view: String::new(),
        },
        Source::View(view) => proto::SourceRef {
            topic: Some(topic_ref(&view.topic)),
            view: view.view.to_string(),
        },
    }
}

pub(crate) fn start_at(start: StartAt) -> proto::StartAt {
    proto::StartAt {
        kind: Some(match start {
            StartAt::Earliest => proto::StartKind::Earliest(proto::Empty {}),
            StartAt::Latest => proto::StartKind::Latest(proto::Empty {}),
            StartAt::Time(time) => proto::StartKind::TimeMs(time.0),
            StartAt::Offset(offset) => proto::StartKind::Offset(offset.0),
        }),
    }
}

pub(crate) fn policy(policy: &RetryPolicy) -> proto::RetryPolicy {
    proto::RetryPolicy {
        max_attempts: u32::from(policy.max_attempts),
        backoff_ms: policy.backoff_ms.clone(),
    }
}

pub(crate) fn binding(spec: &BindingSpec) -> proto::BindingSpec {
    let on_error = match spec.on_error {
        OnError::DeadLetter => proto::OnError::DeadLetter,
        OnError::Pass => proto::OnError::Pass,
        OnError::Skip => proto::OnError::Skip,
        OnError::Retry => proto::OnError::Retry,
        OnError::Stop => proto::OnError::Stop,
    };
    proto::BindingSpec {
        plugin: Some(plugin_ref(&spec.plugin)),
        config: spec.config.clone(),
        on_error: on_error.into(),
    }
}

/// Whole milliseconds, at most 49 days.
pub(crate) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
