//! One record, read in place.

use super::{
    ALIGN, Field, HEAD_FIXED_BYTES, HEAD_FLAG_GROUP, HEAD_FLAG_NULL_BODY, HEAD_FLAG_TAG,
    SectionError, i64_at, u16_at, u32_at,
};
use crate::id::Timestamp;
use crate::limits::HEAD_BYTES_MAX;
use crate::message::Message;
use crate::property::{TYPE_BYTES, TYPE_STRING, ValueRef};

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

    /// Whether it has this tag: cheaper than [`Self::tag`], which looks whether the text is UTF-8.
    #[must_use]
    #[inline]
    pub fn has_tag(&self, tag: &str) -> bool {
        let start = self.fixed_len();
        self.flags() & HEAD_FLAG_TAG != 0
            && same(&self.head[start..start + self.tag_len()], tag.as_bytes())
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
            left: usize::from(self.fixed_u16(24)),
            rest: &self.head[start..],
        }
    }

    /// The properties, in the producer's order.
    #[must_use]
    pub fn properties(&self) -> Properties<'a> {
        Properties(self.raw_properties())
    }

    /// The first property of this name.
    #[must_use]
    #[inline]
    pub fn property(&self, name: &str) -> Option<ValueRef<'a>> {
        self.property_values(name).next()
    }

    /// The values of all properties of this name, in the producer's order. Only these are decoded.
    #[inline]
    pub fn property_values(&self, name: &str) -> impl Iterator<Item = ValueRef<'a>> {
        let mut properties = self.raw_properties();
        core::iter::from_fn(move || properties.next_named(name)).map(RawProperty::decode)
    }

    /// Whether a property of this name has this text, as a string or as bytes: cheaper than comparing
    /// its value, which looks whether the text is UTF-8.
    #[must_use]
    #[inline]
    pub fn has_text(&self, name: &str, text: &str) -> bool {
        let mut properties = self.raw_properties();
        while let Some(raw) = properties.next_named(name) {
            if matches!(raw.kind, TYPE_STRING | TYPE_BYTES) && same(raw.value, text.as_bytes()) {
                return true;
            }
        }
        false
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

    #[inline]
    fn raw_properties(&self) -> RawProperties<'a> {
        let mut keys = self.keys();
        while keys.next().is_some() {}
        RawProperties {
            left: usize::from(self.fixed_u16(26)),
            rest: keys.rest,
        }
    }

    #[inline]
    fn flags(&self) -> u16 {
        self.fixed_u16(6)
    }

    #[inline]
    fn fixed_len(&self) -> usize {
        usize::from(self.fixed_u16(4))
    }

    #[inline]
    fn tag_len(&self) -> usize {
        usize::from(self.fixed_u16(30))
    }

    #[inline]
    fn group_len(&self) -> usize {
        usize::from(self.fixed_u16(32))
    }

    /// A u16 of the fixed part. Reads over a known length, so that bounds are checked once.
    #[inline]
    fn fixed_u16(&self, at: usize) -> u16 {
        let fixed: &[u8; HEAD_FIXED_BYTES] = self
            .head
            .first_chunk()
            .expect("validation has seen a whole fixed part");
        u16_at(fixed, at)
    }
}

/// Text that validation has seen; were it not UTF-8 after all, empty.
fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or_default()
}

/// Iterator over a record's keys.
#[derive(Clone, Debug)]
pub struct Keys<'a> {
    left: usize,
    rest: &'a [u8],
}

impl<'a> Iterator for Keys<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (len, rest) = self.rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.rest = rest;
        Some(key)
    }
}

/// Iterator over a record's properties.
#[derive(Clone, Debug)]
pub struct Properties<'a>(RawProperties<'a>);

impl<'a> Iterator for Properties<'a> {
    type Item = (&'a str, ValueRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let raw = self.0.next()?;
        Some((text(raw.name), raw.decode()))
    }
}

/// Properties as they lie: passing over one reads its lengths and nothing else.
#[derive(Clone, Debug)]
struct RawProperties<'a> {
    left: usize,
    rest: &'a [u8],
}

#[derive(Clone, Copy)]
struct RawProperty<'a> {
    name: &'a [u8],
    kind: u8,
    value: &'a [u8],
}

impl<'a> RawProperties<'a> {
    #[inline]
    fn next(&mut self) -> Option<RawProperty<'a>> {
        self.next_where(|_| true)
    }

    /// The next property whose name passes, by its length first.
    #[inline]
    fn next_named(&mut self, name: &str) -> Option<RawProperty<'a>> {
        loop {
            let raw = self.next_where(|len| len == name.len())?;
            if same(raw.name, name.as_bytes()) {
                return Some(raw);
            }
        }
    }

    #[inline]
    fn next_where(&mut self, fits: impl Fn(usize) -> bool) -> Option<RawProperty<'a>> {
        while self.left > 0 {
            self.left -= 1;
            let rest = self.rest;
            // Name length, type, zero, value length: one read instead of three.
            let frame = u64::from_le_bytes(*rest.first_chunk()?);
            let name_len = (frame & 0xffff) as usize;
            let value_len = (frame >> 32) as usize;
            let end = (8 + name_len).wrapping_add(value_len);
            self.rest = rest.get(end..)?;
            if fits(name_len) {
                return Some(RawProperty {
                    name: rest.get(8..8 + name_len)?,
                    kind: (frame >> 16 & 0xff) as u8,
                    value: rest.get(8 + name_len..end)?,
                });
            }
        }
        None
    }
}

impl<'a> RawProperty<'a> {
    fn decode(self) -> ValueRef<'a> {
        ValueRef::decode(self.kind, self.value).unwrap_or(ValueRef::Unknown(self.kind, self.value))
    }
}

/// Equality, for the short texts that names, tags and most values are, without the call and the loop
/// that `==` on slices is where no fast `memcmp` exists: in guests.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // The chunks from both ends overlap and together cover all bytes.
    match a.len() {
        0..2 => a.first() == b.first(),
        2..4 => a.first_chunk::<2>() == b.first_chunk() && a.last_chunk::<2>() == b.last_chunk(),
        4..8 => a.first_chunk::<4>() == b.first_chunk() && a.last_chunk::<4>() == b.last_chunk(),
        8..=16 => a.first_chunk::<8>() == b.first_chunk() && a.last_chunk::<8>() == b.last_chunk(),
        _ => a == b,
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
