//! A message as a filter sees it.

use tidegate_model::guest_call::{CallBatch, GuestCall};
use tidegate_model::section::{Keys, Properties, Record};
use tidegate_model::{Offset, Timestamp, ValueRef};

/// A stored message, read in place: nothing is copied or parsed before it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    record: Record<'a>,
    base_offset: Offset,
    append_time: Timestamp,
    now: Timestamp,
    has_body: bool,
}

impl<'a> Message<'a> {
    pub(crate) fn new(call: &GuestCall<'a>, batch: &CallBatch<'a>, record: Record<'a>) -> Self {
        Self {
            record,
            base_offset: batch.base_offset(),
            append_time: batch.append_time(),
            now: call.now(),
            has_body: call.has_bodies(),
        }
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&'a str> {
        self.record.tag()
    }

    /// Whether it has this tag: cheaper than comparing [`Self::tag`], which is made text first.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.record.has_tag(tag)
    }

    /// The message group: what it is ordered by.
    #[must_use]
    pub fn group(&self) -> Option<&'a str> {
        self.record.group()
    }

    /// The first key.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.record.keys().next()
    }

    /// All keys, in the producer's order.
    #[must_use]
    pub fn keys(&self) -> Keys<'a> {
        self.record.keys()
    }

    /// The first property of this name.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<ValueRef<'a>> {
        self.record.property(name)
    }

    /// Whether a property of this name has this text, as a string or as bytes: cheaper than comparing
    /// [`Self::property`], which is made text first.
    #[must_use]
    pub fn has_text(&self, name: &str, text: &str) -> bool {
        self.record.has_text(name, text)
    }

    /// The values of all properties of this name, in the producer's order.
    pub fn property_values(&self, name: &str) -> impl Iterator<Item = ValueRef<'a>> {
        self.record.property_values(name)
    }

    /// All properties, in the producer's order; names may repeat.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        self.record.properties()
    }

    /// The body; `None` is a null body, which is not the same as an empty one.
    ///
    /// # Panics
    /// If the filter was declared without needing bodies: the broker doesn't send them then.
    #[must_use]
    pub fn body(&self) -> Option<&'a [u8]> {
        assert!(
            self.has_body,
            "this filter reads bodies: add `body` to the `needs` of filter!"
        );
        self.record.body()
    }

    /// The body as text; `None` if it is null or not UTF-8.
    ///
    /// # Panics
    /// As [`Self::body`].
    #[must_use]
    pub fn body_str(&self) -> Option<&'a str> {
        self.body().and_then(|body| str::from_utf8(body).ok())
    }

    /// Where it stands in its queue.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.record.delta()))
    }

    /// When its producer made it, by the producer's clock.
    #[must_use]
    pub fn create_time(&self) -> Timestamp {
        self.record.create_time()
    }

    /// When the broker stored it.
    #[must_use]
    pub fn append_time(&self) -> Timestamp {
        self.append_time
    }

    /// Not to be delivered before this instant.
    #[must_use]
    pub fn due_time(&self) -> Option<Timestamp> {
        self.record.due_time()
    }

    /// 0 (default, lowest) to 9.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.record.priority()
    }

    /// When the broker asked: the only clock there is. Verdicts that depend on it differ when messages
    /// are read again.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }
}
