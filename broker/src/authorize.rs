//! The one gate in front of every request of every protocol.

use core::fmt;

use tidegate_model::{Name, TopicRef, code};

use crate::principal::{Principal, Role};
use crate::reference::{GroupRef, PluginRef, SourceRef};
use crate::refusal::Refusal;
use crate::request::Request;

/// What a request does to its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create, change or remove it.
    Manage,
    /// See that it exists and how it is set up.
    Describe,
    /// Append messages to it.
    Publish,
    /// Read messages from it.
    Consume,
}

/// What a request touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The server as a whole.
    Server,
    /// Everything in a namespace.
    Namespace(Name),
    /// A topic.
    Topic(TopicRef),
    /// A topic or view, as something to read from.
    Source(SourceRef),
    /// A consumer group.
    Group(GroupRef),
    /// A plugin version.
    Plugin(PluginRef),
}

/// Whether `principal` may do `action` to `resource`. What isn't allowed is denied.
///
/// # Errors
/// A [`Refusal`] with `FORBIDDEN` that names all three.
pub fn authorize(
    principal: &Principal,
    action: Action,
    resource: &Resource,
) -> Result<(), Refusal> {
    match principal.role {
        Role::Admin => Ok(()),
        Role::Revoked => Err(Refusal::new(
            code::FORBIDDEN,
            format!(
                "{} may not {action} {resource}: its key was revoked",
                principal.name
            ),
        )),
    }
}

/// Every action and resource that a request needs; all must be allowed.
///
/// The match has no wildcard: a new kind of request does not compile before it has a rule here.
#[must_use]
pub fn required(request: &Request) -> Vec<(Action, Resource)> {
    let topic = |t: &TopicRef| Resource::Topic(t.clone());
    let source = |s: &SourceRef| Resource::Source(s.clone());
    let group = |g: &GroupRef| Resource::Group(g.clone());
    let view = |v: &crate::ViewRef| Resource::Source(SourceRef::View(v.clone()));
    match request {
        Request::CreateTopic(r) => vec![(Action::Manage, topic(&r.topic))],
        Request::UpdateTopic(r) => vec![(Action::Manage, topic(&r.topic))],
        Request::DeleteTopic(r) => vec![(Action::Manage, topic(&r.topic))],
        Request::DescribeTopic(r) => vec![(Action::Describe, topic(&r.topic))],
        Request::ListTopics(r)
        | Request::ListGroups(r)
        | Request::ListViews(r)
        | Request::ListPlugins(r) => {
            vec![(Action::Describe, Resource::Namespace(r.namespace.clone()))]
        }
        Request::CreateGroup(r) => vec![(Action::Manage, group(&r.group))],
        Request::DeleteGroup(r) => vec![(Action::Manage, group(&r.group))],
        Request::DescribeGroup(r) => vec![(Action::Describe, group(&r.group))],
        Request::ResetGroup(r) => {
            vec![
                (Action::Manage, group(&r.group)),
                (Action::Consume, source(&r.source)),
            ]
        }
        Request::CreateView(r) => vec![(Action::Manage, view(&r.view))],
        Request::DeleteView(r) => vec![(Action::Manage, view(&r.view))],
        Request::DescribeView(r) => vec![(Action::Describe, view(&r.view))],
        Request::DeployPlugin(r) => vec![(Action::Manage, Resource::Plugin(r.plugin.clone()))],
        Request::DescribePlugin(r) => vec![(Action::Describe, Resource::Plugin(r.plugin.clone()))],
        Request::RemovePlugin(r) => vec![(Action::Manage, Resource::Plugin(r.plugin.clone()))],
        Request::Bind(r) => vec![
            (Action::Manage, group(&r.group)),
            (Action::Consume, topic(&r.topic)),
        ],
        Request::Unbind(r) => vec![(Action::Manage, group(&r.group))],
        Request::OpenProducer(r) => vec![(Action::Publish, topic(&r.topic))],
        Request::Publish(r) => vec![(Action::Publish, topic(&r.topic))],
        Request::Subscribe(r) => {
            vec![
                (Action::Consume, group(&r.group)),
                (Action::Consume, source(&r.source)),
            ]
        }
        Request::Receive(r) => {
            vec![
                (Action::Consume, group(&r.group)),
                (Action::Consume, source(&r.source)),
            ]
        }
        Request::Settle(r) => {
            vec![
                (Action::Consume, group(&r.group)),
                (Action::Consume, source(&r.source)),
            ]
        }
        Request::Read(r) => vec![(Action::Consume, source(&r.source))],
        Request::FindMessages(r) => vec![(Action::Consume, topic(&r.topic))],
        Request::GetMessage(r) => vec![(Action::Consume, topic(&r.topic))],
        Request::DescribeServer => vec![(Action::Describe, Resource::Server)],
        // Every message of every topic is in it.
        Request::BackupBegin
        | Request::BackupFiles(_)
        | Request::BackupRead(_)
        | Request::BackupEnd(_) => vec![(Action::Manage, Resource::Server)],
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manage => "manage",
            Self::Describe => "describe",
            Self::Publish => "publish to",
            Self::Consume => "consume from",
        })
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("the server"),
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Topic(topic) => write!(f, "topic {topic}"),
            Self::Source(source) => write!(f, "{source}"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::Plugin(plugin) => write!(f, "plugin {plugin}"),
        }
    }
}
