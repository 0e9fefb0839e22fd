//! The one gate in front of every request of every protocol.

use core::fmt;

use tidegate_model::{Name, Role, TopicRef, code};

use crate::principal::Principal;
use crate::reference::{GroupRef, PluginRef, SourceRef};
use crate::refusal::Refusal;
use crate::request::Request;

/// What a request does to its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make it.
    Create,
    /// Change or remove it.
    Manage,
    /// See that it exists and how it is set up.
    Describe,
    /// Append messages to it.
    Publish,
    /// Read messages from it, and settle them.
    Consume,
}

/// What a request touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The server as a whole.
    Server,
    /// Who is let in.
    Clients,
    /// The list of topics in a namespace.
    Topics(Name),
    /// The list of groups in a namespace.
    Groups(Name),
    /// The list of views in a namespace.
    Views(Name),
    /// The list of plugins in a namespace.
    Plugins(Name),
    /// A topic.
    Topic(TopicRef),
    /// A topic or view, as something to read from.
    Source(SourceRef),
    /// A consumer group.
    Group(GroupRef),
    /// A plugin version.
    Plugin(PluginRef),
}

impl Resource {
    /// The namespace that it lies in; `None` for what lies in none.
    #[must_use]
    pub fn namespace(&self) -> Option<&Name> {
        match self {
            Self::Server | Self::Clients => None,
            Self::Topics(namespace)
            | Self::Groups(namespace)
            | Self::Views(namespace)
            | Self::Plugins(namespace) => Some(namespace),
            Self::Topic(topic) => Some(&topic.namespace),
            Self::Source(source) => Some(&source.topic().namespace),
            Self::Group(group) => Some(&group.namespace),
            Self::Plugin(plugin) => Some(&plugin.namespace),
        }
    }
}

/// Whether `principal` may do `action` to `resource`. What no role allows is denied, and what is denied
/// stays so whatever a role allows.
///
/// # Errors
/// A [`Refusal`] with `FORBIDDEN`, or `KEY_REVOKED`, that names all three.
pub fn authorize(
    principal: &Principal,
    action: Action,
    resource: &Resource,
) -> Result<(), Refusal> {
    if principal.access.is_revoked() {
        return Err(revoked(&principal.name));
    }
    let forbidden = |why: String| {
        let name = &principal.name;
        Refusal::new(
            code::FORBIDDEN,
            format!("client {name} may not {action} {resource}: {why}"),
        )
        .hint(format!(
            "an admin can let another key in: tidegate client invite NAME, with other roles than {}'s",
            principal.name
        ))
    };
    if let Some(namespace) = resource.namespace()
        && !principal.namespaces.is_empty()
        && !principal.namespaces.contains(namespace)
    {
        let namespaces: Vec<&str> = principal.namespaces.iter().map(Name::as_str).collect();
        return Err(forbidden(format!(
            "it is kept to namespace {}",
            namespaces.join(", ")
        )));
    }
    if principal
        .roles
        .iter()
        .any(|role| allows(role, action, resource))
    {
        return Ok(());
    }
    Err(forbidden(format!("its role is {}", principal.roles)))
}

/// What is said to the holder of a key that is no longer let in.
#[must_use]
pub fn revoked(name: &Name) -> Refusal {
    Refusal::new(
        code::KEY_REVOKED,
        format!("the key of client {name} was revoked"),
    )
}

/// What each role is for.
fn allows(role: Role, action: Action, resource: &Resource) -> bool {
    match role {
        Role::Admin => true,
        Role::Producer => matches!(
            (action, resource),
            (Action::Publish, Resource::Topic(_))
                | (
                    Action::Describe,
                    Resource::Server | Resource::Topics(_) | Resource::Topic(_)
                )
        ),
        Role::Consumer => match action {
            Action::Consume => matches!(
                resource,
                Resource::Topic(_) | Resource::Source(_) | Resource::Group(_)
            ),
            Action::Create => matches!(resource, Resource::Group(_)),
            Action::Describe => !matches!(
                resource,
                Resource::Clients | Resource::Plugins(_) | Resource::Plugin(_)
            ),
            Action::Manage | Action::Publish => false,
        },
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
    let see = |resource| vec![(Action::Describe, resource)];
    let view = |v: &crate::ViewRef| Resource::Source(SourceRef::View(v.clone()));
    match request {
        Request::CreateTopic(r) => vec![(Action::Create, topic(&r.topic))],
        Request::UpdateTopic(r) => vec![(Action::Manage, topic(&r.topic))],
        Request::DeleteTopic(r) => vec![(Action::Manage, topic(&r.topic))],
        Request::DescribeTopic(r) => vec![(Action::Describe, topic(&r.topic))],
        Request::ListTopics(r) => see(Resource::Topics(r.namespace.clone())),
        Request::ListGroups(r) => see(Resource::Groups(r.namespace.clone())),
        Request::ListViews(r) => see(Resource::Views(r.namespace.clone())),
        Request::ListPlugins(r) => see(Resource::Plugins(r.namespace.clone())),
        Request::CreateGroup(r) => vec![(Action::Create, group(&r.group))],
        Request::DeleteGroup(r) => vec![(Action::Manage, group(&r.group))],
        Request::DescribeGroup(r) => vec![(Action::Describe, group(&r.group))],
        Request::ResetGroup(r) => {
            vec![
                (Action::Manage, group(&r.group)),
                (Action::Consume, source(&r.source)),
            ]
        }
        Request::CreateView(r) => vec![(Action::Create, view(&r.view))],
        Request::DeleteView(r) => vec![(Action::Manage, view(&r.view))],
        Request::DescribeView(r) => vec![(Action::Describe, view(&r.view))],
        Request::DeployPlugin(r) => vec![(Action::Create, Resource::Plugin(r.plugin.clone()))],
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
        Request::DescribeServer => see(Resource::Server),
        Request::InviteClient(_) => vec![(Action::Create, Resource::Clients)],
        Request::ListClients(_) => see(Resource::Clients),
        Request::RevokeClient(_) => vec![(Action::Manage, Resource::Clients)],
        Request::Check(checked) => required(checked),
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
            Self::Create => "make",
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
            Self::Clients => f.write_str("the clients of this server"),
            Self::Topics(name) => write!(f, "the topics of namespace {name}"),
            Self::Groups(name) => write!(f, "the groups of namespace {name}"),
            Self::Views(name) => write!(f, "the views of namespace {name}"),
            Self::Plugins(name) => write!(f, "the plugins of namespace {name}"),
            Self::Topic(topic) => write!(f, "topic {topic}"),
            Self::Source(source) => write!(f, "{source}"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::Plugin(plugin) => write!(f, "plugin {plugin}"),
        }
    }
}
