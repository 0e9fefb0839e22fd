//! One record, read in place.

use super::{
    ALIGN, Field, HEAD_FIXED_BYTES, HEAD_FLAG_GROUP, HEAD_FLAG_NULL_BODY, HEAD_FLAG_TAG,
    SectionError, i64_at, u16_at, u32_at,
};
use crate::id::Timestamp;
use crate::limits::HEAD_BYTES_MAX;
use crate::message::Message;
use crate::property::ValueRef;

/// A record of a validated section: head and body where they lie.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    delta: u32,
    head: &'a [u8],
    body: &'a [u8],
}

impl<'a> Record<'a> {
    /// A record over a head that [`validate_head`] has accepted.
    pub(crate) fn new(delta: u32, head: &'a [u8], body: &'a [u8]) -> Self {
        Self { delta, head, body }
    }

    /// Its offset minus the batch's base offset.
    #[must_use]
    pub fn delta(&self) -> u32 {
        self.delta
    }

    /// The head as stored.
    #[must_use]
    pub fn head_bytes(&self) -> &'a [u8] {
        self.head
    }

    /// The payload; `None` is a null body. Where the guest call or the codec left bodies out, empty.
    #[must_use]
    pub fn body(&self) -> Option<&'a [u8]> {
        (self.flags() & HEAD_FLAG_NULL_BODY == 0).then_some(self.body)
    }

    /// When the producer made it.
    #[must_use]
    pub fn create_time(&self) -> Timestamp {
        Timestamp(i64_at(self.head, 8))
    }

    /// Not to be delivered before this instant.
    #[must_use]
    pub fn due_time(&self) -> Option<Timestamp> {
        let due = i64_at(self.head, 16);
        (due != 0).then_some(Timestamp(due))
    }

    /// 0 (default, lowest) to [`crate::limits::PRIORITY_MAX`].
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.head[28]
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&'a str> {
        let start = self.fixed_len();
        (self.flags() & HEAD_FLAG_TAG != 0).then(|| text(&self.head[start..start + self.tag_len()]))
    }

    /// The message group.
    #[must_use]
    pub fn group(&self) -> Option<&'a str> {
        let start = self.fixed_len() + self.tag_len();
        (self.flags() & HEAD_FLAG_GROUP != 0)
            .then(|| text(&self.head[start..start + self.group_len()]))
    }

    /// The keys, in the producer's order.
    #[must_use]
    pub fn keys(&self) -> Keys<'a> {
        let start = self.fixed_len() + self.tag_len() + self.group_len();
        Keys {
            left: u16_at(self.head, 24),
            rest: &self.head[start..],
        }
    }

    /// The properties, in the producer's order.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        let mut keys = self.keys();
        while keys.next().is_some() {}
        Properties {
            left: u16_at(self.head, 26),
            rest: keys.rest,
        }
    }

    /// The first property of this name.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<ValueRef<'a>> {
        self.properties()
            .find_map(|(found, value)| (found == name).then_some(value))
    }

    /// An owned copy.
    #[must_use]
    pub fn to_message(&self) -> Message {
        Message {
            body: self.body().map(Into::into),
            keys: self.keys().map(Into::into).collect(),
            tag: self.tag().map(Into::into),
            group: self.group().map(Into::into),
            properties: self
                .properties()
                .map(|(n, v)| (n.into(), v.to_value()))
                .collect(),
            create_time: self.create_time(),
            due_time: self.due_time(),
            priority: self.priority(),
        }
    }

    fn flags(&self) -> u16 {
        u16_at(self.head, 6)
    }

    fn fixed_len(&self) -> usize {
        usize::from(u16_at(self.head, 4))
    }

    fn tag_len(&self) -> usize {
        usize::from(u16_at(self.head, 30))
    }

    fn group_len(&self) -> usize {
        usize::from(u16_at(self.head, 32))
    }
}

/// Text that validation has seen; were it not UTF-8 after all, empty.
fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or_default()
}

/// Iterator over a record's keys.
#[derive(Clone, Debug)]
pub struct Keys<'a> {
    left: u16,
    rest: &'a [u8],
}

impl<'a> Iterator for Keys<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let len = u32_at(self.rest, 0) as usize;
        let (key, rest) = self.rest[4..].split_at(len);
        self.rest = rest;
        Some(key)
    }
}

/// Iterator over a record's properties.
#[derive(Clone, Debug)]
pub struct Properties<'a> {
    left: u16,
    rest: &'a [u8],
}

impl<'a> Iterator for Properties<'a> {
    type Item = (&'a str, ValueRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name_len = usize::from(u16_at(self.rest, 0));
        let kind = self.rest[2];
        let value_len = u32_at(self.rest, 4) as usize;
        let (name, rest) = self.rest[8..].split_at(name_len);
        let (value, rest) = rest.split_at(value_len);
        self.rest = rest;
        let value = ValueRef::decode(kind, value).unwrap_or(ValueRef::Unknown(kind, value));
        Some((text(name), value))
    }
}

/// Checks one head completely, so that [`Record`] can read it without looking back.
pub(super) fn validate_head(
    record: usize,
    head: &[u8],
    body_len: usize,
) -> Result<(), SectionError> {
    let malformed = |reason| SectionError::Head { record, reason };
    if head.len() < HEAD_FIXED_BYTES || !head.len().is_multiple_of(ALIGN) {
        return Err(malformed("its length is no multiple of 8 of at least 40"));
    }
    if head.len() > HEAD_BYTES_MAX {
        return Err(SectionError::HeadTooLarge {
            record,
            len: head.len(),
        });
    }
    if u32_at(head, 0) as usize != head.len() {
        return Err(malformed("head_len and the record table disagree"));
    }
    let fixed = usize::from(u16_at(head, 4));
    if fixed < HEAD_FIXED_BYTES || fixed > head.len() {
        return Err(malformed("fixed_len is below 40 or beyond the head"));
    }
    let flags = u16_at(head, 6);
    let tag_len = usize::from(u16_at(head, 30));
    let group_len = usize::from(u16_at(head, 32));
    let keys = usize::from(u16_at(head, 24));
    let properties = usize::from(u16_at(head, 26));
    Field::Tag.check(record, tag_len)?;
    Field::Group.check(record, group_len)?;
    Field::Keys.check(record, keys)?;
    Field::Properties.check(record, properties)?;
    Field::Priority.check(record, usize::from(head[28]))?;
    if flags & HEAD_FLAG_TAG == 0 && tag_len != 0 || flags & HEAD_FLAG_GROUP == 0 && group_len != 0
    {
        return Err(malformed("a tag or group without its flag"));
    }
    if flags & HEAD_FLAG_NULL_BODY != 0 && body_len != 0 {
        return Err(malformed("a null body with bytes"));
    }

    let mut rest = &head[fixed..];
    let mut take = |len: usize| -> Result<&[u8], SectionError> {
        let (taken, left) = rest
            .split_at_checked(len)
            .ok_or(malformed("a field ends beyond it"))?;
        rest = left;
        Ok(taken)
    };
    let utf8 = |bytes: &[u8]| core::str::from_utf8(bytes).is_ok();
    if !utf8(take(tag_len)?) || !utf8(take(group_len)?) {
        return Err(malformed("tag or group is not UTF-8"));
    }
    for _ in 0..keys {
        let len = u32_at(take(4)?, 0) as usize;
        take(len)?;
    }
    for _ in 0..properties {
        let frame = take(8)?;
        let (name_len, kind) = (usize::from(u16_at(frame, 0)), frame[2]);
        let value_len = u32_at(frame, 4) as usize;
        Field::PropertyName.check(record, name_len)?;
        if !utf8(take(name_len)?) {
            return Err(malformed("a property name is not UTF-8"));
        }
        if ValueRef::decode(kind, take(value_len)?).is_none() {
            return Err(malformed("a property value does not fit its type"));
        }
    }
    Ok(())
}
