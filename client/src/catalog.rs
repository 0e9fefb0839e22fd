//! Topics, groups, views and plugins as a client names and sees them.

use core::fmt;
use core::str::FromStr;

use bytes::Bytes;
use tidegate_model::name::{DEFAULT_NAMESPACE, split_namespace};
use tidegate_model::{
    Code, MessageId, Name, NameError, Offset, QueueId, ShardId, Timestamp, TopicChange, TopicRef,
    TopicSettings,
};

/// A consumer group by name, written `GROUP` or `NAMESPACE/GROUP`.
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

/// A plugin version by name, written `PLUGIN:VERSION` or `NAMESPACE/PLUGIN:VERSION`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginRef {
    /// The namespace.
    pub namespace: Name,
    /// The plugin's name in it.
    pub plugin: Name,
    /// The version, free of meaning to the server.
    pub version: Name,
}

/// What can be consumed or read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A topic as it is, or through the plugin bound to the group's subscription.
    Topic(TopicRef),
    /// A view.
    View(ViewRef),
}

impl Source {
    /// The topic that the messages come from.
    #[must_use]
    pub fn topic(&self) -> &TopicRef {
        match self {
            Self::Topic(topic) => topic,
            Self::View(view) => &view.topic,
        }
    }
}

/// Makes a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    /// Its name.
    pub topic: TopicRef,
    /// Queues, 1 to [`tidegate_model::limits::TOPIC_QUEUES_MAX`].
    pub queues: u32,
    /// What it keeps, where it differs from the server's default.
    pub settings: TopicChange,
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub topic: TopicRef,
    /// Raised when queues are added.
    pub layout_version: u32,
    /// When it was made.
    pub created: Timestamp,
    /// Its queues in index order.
    pub queues: Vec<QueueInfo>,
    /// What it keeps.
    pub settings: TopicSettings,
}

/// A queue as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its id.
    pub queue: QueueId,
    /// The shard that holds it.
    pub shard: ShardId,
    /// First offset that can be read.
    pub start: Offset,
    /// One past the last durable message.
    pub next: Offset,
    /// Stored bytes of the batches between.
    pub bytes: u64,
    /// When its first message was stored: told by [`crate::Client::topic`] alone, `None` if it has none.
    pub oldest: Option<Timestamp>,
}

/// Makes a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateGroup {
    /// Its name.
    pub group: GroupRef,
    /// Its retry policy; `None` takes the server's.
    pub policy: Option<RetryPolicy>,
}

/// How a group's deliveries are retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Deliveries in all, the first included, before a message goes to the dead-letter topic; at
    /// least 1.
    pub max_attempts: u16,
    /// Wait before attempt 2, 3, …, in ms; the last one serves all further attempts. Empty: at once.
    pub backoff_ms: Vec<u32>,
}

impl Default for RetryPolicy {
    /// The broker's: 17 attempts; waits of 1 s, 5 s, 10 s, 30 s, then 1 to 10 minutes.
    fn default() -> Self {
        Self {
            max_attempts: 17,
            backoff_ms: vec![
                1_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000,
            ],
        }
    }
}

/// A consumer group as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name.
    pub group: GroupRef,
    /// Its retry policy.
    pub policy: RetryPolicy,
    /// What it consumes.
    pub subscriptions: Vec<SubscriptionInfo>,
}

/// A group's cursor on one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionInfo {
    /// The topic or view.
    pub source: Source,
    /// The plugin bound to this subscription.
    pub binding: Option<BindingSpec>,
    /// Members with a live subscription.
    pub members: u32,
    /// Per queue, in index order.
    pub queues: Vec<CursorInfo>,
}

/// A group's cursor on one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorInfo {
    /// The queue.
    pub queue: QueueId,
    /// All messages before this offset are acked, parked or passed over.
    pub cursor: Offset,
    /// One past the last durable message.
    pub next: Offset,
    /// Messages leased now.
    pub leased: u64,
    /// Messages waiting for their next attempt.
    pub parked: u64,
    /// Why nothing is delivered until the bindings change or a member subscribes anew: what a plugin
    /// under on-error `stop` failed with, or why the source can't be judged.
    pub stopped: Option<Code>,
}

/// Where a cursor begins, or is moved to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// At the first message there is.
    #[default]
    Earliest,
    /// After the last message there is.
    Latest,
    /// At the first message appended at this instant or later.
    Time(Timestamp),
    /// At this offset, in every queue.
    Offset(Offset),
}

/// Moves a group's cursor on a source; leases and parked messages of that cursor are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetGroup {
    /// The group.
    pub group: GroupRef,
    /// The topic or view whose cursor moves.
    pub source: Source,
    /// Where to.
    pub to: StartAt,
    /// Tell old and new offsets, change nothing.
    pub dry_run: bool,
}

/// A cursor moved, or about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorMove {
    /// The queue.
    pub queue: QueueId,
    /// Where it stood.
    pub from: Offset,
    /// Where it stands.
    pub to: Offset,
}

/// Makes a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateView {
    /// Its topic and name.
    pub view: ViewRef,
    /// Its plugin chain, run in order; a message is in the view if all accept it.
    pub bindings: Vec<BindingSpec>,
}

/// A view as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewInfo {
    /// Topic and name.
    pub view: ViewRef,
    /// Its plugin chain.
    pub bindings: Vec<BindingSpec>,
    /// When it was made.
    pub created: Timestamp,
}

/// A plugin version with a configuration and an on-error policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingSpec {
    /// The plugin version.
    pub plugin: PluginRef,
    /// Given to its `configure`; the plugin knows the format.
    pub config: Bytes,
    /// What happens to messages on which it fails.
    pub on_error: OnError,
}

/// What happens to messages on which a delivery-side plugin fails. Nothing is lost silently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// They go to the group's dead-letter topic.
    #[default]
    DeadLetter,
    /// They are delivered as if accepted.
    Pass,
    /// They are passed over as if rejected, and counted.
    Skip,
    /// They are judged again after the group's backoff, then dead-lettered.
    Retry,
    /// Delivery of the queue waits until the binding is changed.
    Stop,
}

/// Uploads a component under a name and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployPlugin {
    /// Its name and version.
    pub plugin: PluginRef,
    /// The WebAssembly component.
    pub component: Bytes,
}

/// A plugin version as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginInfo {
    /// Name and version.
    pub plugin: PluginRef,
    /// SHA-256 of the component.
    pub digest: [u8; 32],
    /// The world it implements, as in `tidegate:plugin/filter@0.1.0`.
    pub world: String,
    /// Bytes of the component.
    pub size: u64,
    /// When it was deployed.
    pub deployed: Timestamp,
    /// Views and subscriptions that bind it, as `TOPIC@VIEW` or `GROUP:TOPIC`.
    pub bound_to: Vec<String>,
    /// The last messages that it failed on since the server started, the newest first;
    /// [`crate::Client::plugins`] gives none.
    pub failures: Vec<PluginFailure>,
}

/// A message that a plugin failed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginFailure {
    /// When.
    pub at: Timestamp,
    /// How.
    pub code: Code,
    /// What the plugin or the engine said.
    pub message: String,
    /// The message's topic; empty if it is gone.
    pub topic: String,
    /// Index of its queue in the topic, from 0.
    pub queue_index: u32,
    /// Its offset there.
    pub offset: Offset,
    /// Its id.
    pub message_id: MessageId,
}

/// The server as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its version.
    pub version: String,
    /// Milliseconds since it became ready.
    pub uptime_ms: u64,
    /// Shards.
    pub shards: u32,
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

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => topic.fmt(f),
            Self::View(view) => view.fmt(f),
        }
    }
}

impl FromStr for GroupRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, group) = split_namespace(text)?;
        Ok(Self {
            namespace,
            group: Name::reference(group)?,
        })
    }
}

impl FromStr for ViewRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (topic, view) = text
            .split_once('@')
            .ok_or_else(|| form(text, "TOPIC@VIEW"))?;
        Ok(Self {
            topic: topic.parse()?,
            view: Name::reference(view)?,
        })
    }
}

impl FromStr for PluginRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (plugin, version) = text
            .rsplit_once(':')
            .ok_or_else(|| form(text, "PLUGIN:VERSION"))?;
        let (namespace, plugin) = split_namespace(plugin)?;
        Ok(Self {
            namespace,
            plugin: Name::reference(plugin)?,
            version: Name::reference(version)?,
        })
    }
}

impl FromStr for Source {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('@') {
            text.parse().map(Self::View)
        } else {
            text.parse().map(Self::Topic)
        }
    }
}

fn form(text: &str, form: &'static str) -> NameError {
    NameError::Form {
        text: text.to_owned(),
        form,
    }
}

fn qualified(f: &mut fmt::Formatter<'_>, namespace: &Name, name: &Name) -> fmt::Result {
    if namespace.as_str() != DEFAULT_NAMESPACE {
        write!(f, "{namespace}/")?;
    }
    fmt::Display::fmt(name, f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_print_what_they_read() {
        for text in ["flights", "eu/flights", "flights@late", "eu/flights@late"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        for text in ["late:0.1.0", "eu/late:2"] {
            assert_eq!(text.parse::<PluginRef>().unwrap().to_string(), text);
        }
        for text in ["g", "eu/g"] {
            assert_eq!(text.parse::<GroupRef>().unwrap().to_string(), text);
        }
        for text in ["", "a/../b", "a@", "@b", "/x"] {
            assert!(text.parse::<Source>().is_err(), "{text:?} passed");
        }
        let error = "late".parse::<PluginRef>().unwrap_err();
        assert!(error.to_string().contains("PLUGIN:VERSION"), "{error}");
        let error = "late".parse::<ViewRef>().unwrap_err();
        assert!(error.to_string().contains("TOPIC@VIEW"), "{error}");
        for text in ["flights", "eu/flights", "%DLQ%g"] {
            assert_eq!(text.parse::<TopicRef>().unwrap().to_string(), text);
        }
    }
}
