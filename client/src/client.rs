//! A connection to a server, and the requests that are answered once.

use std::time::Duration;

use tidegate_model::{Name, TopicRef, code};

use crate::Error;
use crate::address::Address;
use crate::catalog::{
    BindingSpec, CreateGroup, CreateTopic, CreateView, CursorMove, DeployPlugin, GroupInfo,
    GroupRef, PluginInfo, PluginRef, ResetGroup, ServerInfo, Source, StartAt, TopicInfo, ViewInfo,
    ViewRef,
};
use crate::consumer::{Consumer, ConsumerOptions};
use crate::key::ClientKey;
use crate::message::{Handle, ReadResult, Received};
use crate::producer::{Producer, ProducerOptions};

/// How to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// How long the first connection may take, handshake and authentication included.
    pub connect_timeout: Duration,
    /// How long a request may take before it fails with `TIMEOUT`; a long poll adds its own wait.
    pub request_timeout: Duration,
    /// Largest UDP payload to probe for, in bytes, 1,200 to 6,500. 1,452 suits the Internet; on a
    /// LAN with jumbo frames or on loopback 6,000 halves the work.
    pub mtu_upper_bound: u16,
}

impl Default for ConnectOptions {
    /// 5 s, 30 s, 1,452 bytes.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            mtu_upper_bound: 1452,
        }
    }
}

/// Who the server takes the client for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name given at login.
    pub principal: Name,
}

/// A connection to a server. Clones share it; it ends with the last clone, producer and consumer.
///
/// A broken connection is made anew in the background: producers and consumers carry on, a request
/// that was under way fails with `CANCELLED`, a later one waits for the new connection.
#[derive(Clone, Debug)]
pub struct Client {}

impl Client {
    /// Exchanges a one-time token for the right to connect with `key`.
    ///
    /// # Errors
    /// `UNREACHABLE`, `PIN_MISMATCH`, `TOKEN_INVALID`, `TOKEN_EXPIRED`.
    pub async fn login(
        address: &Address,
        token: &str,
        name: &Name,
        key: &ClientKey,
    ) -> Result<Identity, Error> {
        let _ = (address, token, name, key);
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Connects and authenticates. Fails if the first attempt does.
    ///
    /// # Errors
    /// `UNREACHABLE`, `PIN_MISMATCH`, `AUTH_FAILED`, `VERSION`.
    pub async fn connect(
        address: &Address,
        key: &ClientKey,
        options: ConnectOptions,
    ) -> Result<Self, Error> {
        let _ = (address, key, options);
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Who the server takes this client for.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            principal: Name::default_namespace(),
        }
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// `TOPIC_EXISTS`, `INVALID_ARGUMENT`, and what any request may meet: see [`Error::remedy`].
    pub async fn create_topic(&self, create: &CreateTopic) -> Result<TopicInfo, Error> {
        let _ = create;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Removes a topic with its messages.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `IN_USE`.
    pub async fn delete_topic(&self, topic: &TopicRef) -> Result<(), Error> {
        let _ = topic;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// One topic.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`.
    pub async fn topic(&self, topic: &TopicRef) -> Result<TopicInfo, Error> {
        let _ = topic;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// All topics of a namespace.
    ///
    /// # Errors
    /// What any request may meet.
    pub async fn topics(&self, namespace: &Name) -> Result<Vec<TopicInfo>, Error> {
        let _ = namespace;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Makes a consumer group.
    ///
    /// # Errors
    /// `GROUP_EXISTS`, `INVALID_ARGUMENT`.
    pub async fn create_group(&self, create: &CreateGroup) -> Result<GroupInfo, Error> {
        let _ = create;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Removes a group with its cursors; its dead-letter topic stays.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`.
    pub async fn delete_group(&self, group: &GroupRef) -> Result<(), Error> {
        let _ = group;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// One group.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`.
    pub async fn group(&self, group: &GroupRef) -> Result<GroupInfo, Error> {
        let _ = group;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// All groups of a namespace.
    ///
    /// # Errors
    /// What any request may meet.
    pub async fn groups(&self, namespace: &Name) -> Result<Vec<GroupInfo>, Error> {
        let _ = namespace;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Moves a group's cursor, or tells where it would go.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `SUBSCRIPTION_NOT_FOUND`, `OFFSET_OUT_OF_RANGE`.
    pub async fn reset_group(&self, reset: &ResetGroup) -> Result<Vec<CursorMove>, Error> {
        let _ = reset;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Makes a view.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `VIEW_EXISTS`, `PLUGIN_NOT_FOUND`, `PLUGIN_CONFIG_REFUSED`.
    pub async fn create_view(&self, create: &CreateView) -> Result<ViewInfo, Error> {
        let _ = create;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Removes a view.
    ///
    /// # Errors
    /// `VIEW_NOT_FOUND`.
    pub async fn delete_view(&self, view: &ViewRef) -> Result<(), Error> {
        let _ = view;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// One view.
    ///
    /// # Errors
    /// `VIEW_NOT_FOUND`.
    pub async fn view(&self, view: &ViewRef) -> Result<ViewInfo, Error> {
        let _ = view;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// All views of a namespace.
    ///
    /// # Errors
    /// What any request may meet.
    pub async fn views(&self, namespace: &Name) -> Result<Vec<ViewInfo>, Error> {
        let _ = namespace;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Uploads a plugin version; the server compiles and checks it before it answers.
    ///
    /// # Errors
    /// The `PLUGIN_…` codes say what is wrong with the component.
    pub async fn deploy_plugin(&self, deploy: &DeployPlugin) -> Result<PluginInfo, Error> {
        let _ = deploy;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Removes a plugin version.
    ///
    /// # Errors
    /// `PLUGIN_NOT_FOUND`, `IN_USE`.
    pub async fn remove_plugin(&self, plugin: &PluginRef) -> Result<(), Error> {
        let _ = plugin;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// One plugin version.
    ///
    /// # Errors
    /// `PLUGIN_NOT_FOUND`.
    pub async fn plugin(&self, plugin: &PluginRef) -> Result<PluginInfo, Error> {
        let _ = plugin;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// All plugin versions of a namespace.
    ///
    /// # Errors
    /// What any request may meet.
    pub async fn plugins(&self, namespace: &Name) -> Result<Vec<PluginInfo>, Error> {
        let _ = namespace;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Binds a plugin to a group's subscription of a topic, in place of one bound before.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `TOPIC_NOT_FOUND`, `PLUGIN_NOT_FOUND`, `PLUGIN_CONFIG_REFUSED`.
    pub async fn bind(
        &self,
        group: &GroupRef,
        topic: &TopicRef,
        binding: &BindingSpec,
    ) -> Result<(), Error> {
        let _ = (group, topic, binding);
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Removes the plugin bound to a group's subscription of a topic.
    ///
    /// # Errors
    /// `BINDING_NOT_FOUND`.
    pub async fn unbind(&self, group: &GroupRef, topic: &TopicRef) -> Result<(), Error> {
        let _ = (group, topic);
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Version, uptime, limits.
    ///
    /// # Errors
    /// What any request may meet.
    pub async fn server_info(&self) -> Result<ServerInfo, Error> {
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Opens a producer on a topic.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `DEAD_LETTER_READ_ONLY`, `INVALID_ARGUMENT` for options out of bounds.
    pub async fn producer(
        &self,
        topic: &TopicRef,
        options: ProducerOptions,
    ) -> Result<Producer, Error> {
        let _ = (topic, options);
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Subscribes as a member of a group.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`, `INVALID_ARGUMENT` for options out of
    /// bounds.
    pub async fn consumer(&self, options: &ConsumerOptions) -> Result<Consumer, Error> {
        let _ = options;
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Takes up to `max_messages` messages once, waiting up to `wait` for the first. Settle them with
    /// [`Self::ack`]. `options` gives group, source, start and invisible duration; its credit bytes
    /// bound the answer.
    ///
    /// # Errors
    /// As [`Self::consumer`].
    pub async fn receive(
        &self,
        options: &ConsumerOptions,
        max_messages: u32,
        wait: Duration,
    ) -> Result<Vec<Received>, Error> {
        let _ = (options, max_messages, wait);
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Acknowledges messages taken by [`Self::receive`]; durable when it returns. One result per
    /// handle, in order.
    ///
    /// # Errors
    /// Where nothing was settled at all.
    pub async fn ack(
        &self,
        group: &GroupRef,
        source: &Source,
        handles: &[Handle],
    ) -> Result<Vec<Result<(), tidegate_model::Code>>, Error> {
        let _ = (group, source, handles);
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Reads stored messages of one queue by offset, without a group.
    ///
    /// # Errors
    /// `TOPIC_NOT_FOUND`, `VIEW_NOT_FOUND`, `QUEUE_NOT_FOUND`, `OFFSET_OUT_OF_RANGE`.
    pub async fn read(
        &self,
        source: &Source,
        queue_index: u32,
        from: StartAt,
        max_messages: u32,
    ) -> Result<ReadResult, Error> {
        let _ = (source, queue_index, from, max_messages);
        Err(Error::new(code::UNSUPPORTED, "not connected"))
    }

    /// Closes the connection under all clones. Producers and consumers end.
    pub async fn close(self) {}
}
