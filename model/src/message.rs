//! A message as an application builds it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::id::Timestamp;
use crate::property::Value;

/// A message before it is stored. Empty by default: a null body, no key, no tag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// The payload; `None` is a null body (a tombstone in compacted topics), distinct from empty.
    pub body: Option<Vec<u8>>,
    /// Keys to find it by; the first places it in a queue when there is no group.
    pub keys: Vec<Vec<u8>>,
    /// The tag that subscriptions select by.
    pub tag: Option<String>,
    /// FIFO key: messages of one group are delivered one after another.
    pub group: Option<String>,
    /// Typed properties, in order; names may repeat.
    pub properties: Vec<(String, Value)>,
    /// When the producer made it; the epoch if it didn't say.
    pub create_time: Timestamp,
    /// Not before this instant; `None` at once.
    pub due_time: Option<Timestamp>,
    /// 0 (default, lowest) to [`crate::limits::PRIORITY_MAX`].
    pub priority: u8,
}

impl Message {
    /// A message with this body.
    #[must_use]
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: Some(body.into()),
            ..Self::default()
        }
    }

    /// Adds a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Sets the tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// Sets the message group.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Adds a property.
    #[must_use]
    pub fn property(mut self, name: impl Into<String>, value: Value) -> Self {
        self.properties.push((name.into(), value));
        self
    }

    /// The bytes that choose its queue: the message group, else the first key, else none.
    #[must_use]
    pub fn placement_key(&self) -> Option<&[u8]> {
        self.group
            .as_ref()
            .map(String::as_bytes)
            .or_else(|| self.keys.first().map(Vec::as_slice))
    }
}
