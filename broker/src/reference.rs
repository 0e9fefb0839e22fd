//! Names of things that live in a namespace.

use core::fmt;

use tidegate_model::{Name, TopicRef};

/// A consumer group by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupRef {
    /// The namespace.
    pub namespace: Name,
    /// The group's name in it.
    pub group: Name,
}

/// A view by name, written `TOPIC@VIEW`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewRef {
    /// The topic that it reads.
    pub topic: TopicRef,
    /// The view's name on that topic.
    pub view: Name,
}

/// A plugin version by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginRef {
    /// The namespace.
    pub namespace: Name,
    /// The plugin's name in it.
    pub plugin: Name,
    /// The version, free of meaning to the broker.
    pub version: Name,
}

/// What a group consumes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceRef {
    /// A topic as it is, or through the plugin bound to the group's subscription.
    Topic(TopicRef),
    /// A view.
    View(ViewRef),
}

impl SourceRef {
    /// The topic that the messages come from.
    #[must_use]
    pub fn topic(&self) -> &TopicRef {
        match self {
            Self::Topic(topic) => topic,
            Self::View(view) => &view.topic,
        }
    }
}

impl fmt::Display for GroupRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        qualified(f, &self.namespace, &self.group)
    }
}

impl fmt::Display for ViewRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.topic, self.view)
    }
}

impl fmt::Display for PluginRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        qualified(f, &self.namespace, &self.plugin)?;
        write!(f, ":{}", self.version)
    }
}

impl fmt::Display for SourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => topic.fmt(f),
            Self::View(view) => view.fmt(f),
        }
    }
}

fn qualified(f: &mut fmt::Formatter<'_>, namespace: &Name, name: &Name) -> fmt::Result {
    if namespace.as_str() != tidegate_model::name::DEFAULT_NAMESPACE {
        write!(f, "{namespace}/")?;
    }
    fmt::Display::fmt(name, f)
}
