//! What all frames have in common: a prefix of eight bytes.

mod decoder;
mod fields;

pub use decoder::FrameDecoder;

use core::fmt;

use bytes::Bytes;

use crate::limits::{
    CONTROL_FRAME_BYTES_MAX, HELLO_FRAME_BYTES_MAX, REPLY_FRAME_BYTES_MAX, REQUEST_FRAME_BYTES_MAX,
    SECTION_FRAME_BYTES_MAX,
};
use crate::refusal::WireError;

/// Bytes of the prefix.
pub const PREFIX_BYTES: usize = 8;
/// Prefix flag: a receiver that doesn't know the type skips the frame instead of closing.
pub const FLAG_MAY_IGNORE: u8 = 0x80;

/// Type of a frame. A number without a constant is a type from the future.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameType(pub u8);

macro_rules! frame_types {
    ($($number:literal $constant:ident $name:literal $min:expr, $max:expr;)*) => {
        impl FrameType {
            $(
                #[doc = concat!("`", $name, "`.")]
                pub const $constant: Self = Self($number);
            )*

            /// Every type of this version, rising.
            pub const ALL: &[Self] = &[$(Self::$constant),*];

            /// Its name, `unknown` for a type from the future.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self.0 {
                    $($number => $name,)*
                    _ => "unknown",
                }
            }

            /// Bytes of its fixed header, prefix included.
            #[must_use]
            pub fn header_bytes(self) -> usize {
                match self.0 {
                    $($number => $min,)*
                    _ => PREFIX_BYTES,
                }
            }

            /// Bytes that a frame of this type has at most, prefix included.
            #[must_use]
            pub fn bytes_max(self) -> usize {
                match self.0 {
                    $($number => $max,)*
                    _ => CONTROL_FRAME_BYTES_MAX,
                }
            }
        }
    };
}

frame_types! {
    0x01 HELLO "hello" PREFIX_BYTES, HELLO_FRAME_BYTES_MAX;
    0x02 WELCOME "welcome" PREFIX_BYTES, HELLO_FRAME_BYTES_MAX;
    0x03 REFUSED "refused" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x04 SUBSCRIBE "subscribe" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x05 SUBSCRIBED "subscribed" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x06 CREDIT "credit" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x07 SETTLE "settle" crate::settle::HEADER_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x08 SETTLED "settled" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x09 UNSUBSCRIBE "unsubscribe" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x0a ENDED "ended" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x0b PING "ping" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x0c PONG "pong" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x0d GOAWAY "goaway" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x0e THROTTLE "throttle" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x20 OPEN_PRODUCER "open-producer" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x21 PRODUCER_OPENED "producer-opened" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x22 PUBLISH "publish" crate::publish::HEADER_BYTES, SECTION_FRAME_BYTES_MAX;
    0x23 PUBLISHED "published" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x24 PUBLISH_REFUSED "publish-refused" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x30 ALIAS "alias" PREFIX_BYTES, CONTROL_FRAME_BYTES_MAX;
    0x31 DELIVERY "delivery" crate::delivery::HEADER_BYTES, SECTION_FRAME_BYTES_MAX;
    0x40 REQUEST "request" PREFIX_BYTES, REQUEST_FRAME_BYTES_MAX;
    0x41 REPLY "reply" PREFIX_BYTES, REPLY_FRAME_BYTES_MAX;
}

impl fmt::Display for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "unknown" => write!(f, "type {:#04x}", self.0),
            name => f.write_str(name),
        }
    }
}

impl fmt::Debug for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The first eight bytes of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Bytes of the whole frame, this prefix included.
    pub len: u32,
    /// Type of the frame.
    pub kind: FrameType,
    /// Flags of the type; [`FLAG_MAY_IGNORE`] is common to all.
    pub flags: u8,
    /// [`tidegate_model::Codec`] of the section as a byte; 0 where there is none.
    pub codec: u8,
    /// Words of 8 bytes between the type's fixed header and its payload. A reader skips those that
    /// it doesn't know.
    pub extra: u8,
}

impl Prefix {
    /// The eight bytes.
    #[must_use]
    pub fn encode(self) -> [u8; PREFIX_BYTES] {
        let len = self.len.to_le_bytes();
        [
            len[0],
            len[1],
            len[2],
            len[3],
            self.kind.0,
            self.flags,
            self.codec,
            self.extra,
        ]
    }

    /// Reads and checks the eight bytes: the length against the type's bounds.
    ///
    /// # Errors
    /// [`WireError::FrameTooLong`] or [`WireError::FrameTooShort`], before anything is allocated.
    pub fn decode(bytes: [u8; PREFIX_BYTES]) -> Result<Self, WireError> {
        let [l0, l1, l2, l3, kind, flags, codec, extra] = bytes;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let kind = FrameType(kind);
        let max = kind.bytes_max();
        if len as usize > max {
            return Err(WireError::FrameTooLong { kind, len, max });
        }
        let min = kind.header_bytes() + usize::from(extra) * 8;
        if (len as usize) < min {
            return Err(WireError::FrameTooShort { kind, len, min });
        }
        Ok(Self {
            len,
            kind,
            flags,
            codec,
            extra,
        })
    }

    /// Whether a receiver that doesn't know the type skips the frame.
    #[must_use]
    pub fn may_ignore(self) -> bool {
        self.flags & FLAG_MAY_IGNORE != 0
    }

    /// Whether it is of a type that this version doesn't know and may skip.
    #[must_use]
    pub fn is_from_the_future(self) -> bool {
        self.may_ignore() && !FrameType::ALL.contains(&self.kind)
    }

    /// Where the payload begins, in bytes from the start of the frame.
    #[must_use]
    pub fn payload_at(self) -> usize {
        self.kind.header_bytes() + usize::from(self.extra) * 8
    }
}

/// A whole frame; its lengths have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its prefix.
    pub prefix: Prefix,
    /// All of it, prefix included.
    pub bytes: Bytes,
}

impl Frame {
    /// Reads a whole frame from bytes that hold exactly one.
    ///
    /// # Errors
    /// [`WireError`] if the prefix is wrong or the length is another.
    pub fn parse(bytes: Bytes) -> Result<Self, WireError> {
        let prefix: [u8; PREFIX_BYTES] =
            bytes.first_chunk().copied().ok_or(WireError::Truncated {
                missing: (PREFIX_BYTES - bytes.len().min(PREFIX_BYTES)) as u64,
            })?;
        let prefix = Prefix::decode(prefix)?;
        match (prefix.len as usize).checked_sub(bytes.len()) {
            Some(0) => Ok(Self { prefix, bytes }),
            missing => Err(WireError::Truncated {
                missing: missing.unwrap_or(0) as u64,
            }),
        }
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(self.prefix.payload_at()..)
    }

    /// Reads its payload as a protobuf message of at most `fields_max` fields, those of the messages right
    /// in it counted.
    ///
    /// # Errors
    /// [`WireError::Exceeded`] before anything is decoded, [`WireError::Malformed`] with the decoder's
    /// reason.
    pub fn message_within<M: prost::Message + Default>(
        &self,
        fields_max: usize,
    ) -> Result<M, WireError> {
        let found = fields::count(&self.payload(), fields_max + 1);
        if found > fields_max {
            return Err(WireError::Exceeded {
                what: "the number of fields of a request",
                found: found as u64,
                max: fields_max as u64,
            });
        }
        self.message()
    }

    /// Reads its payload as a protobuf message.
    ///
    /// # Errors
    /// [`WireError::Malformed`] with the decoder's reason.
    pub fn message<M: prost::Message + Default>(&self) -> Result<M, WireError> {
        M::decode(self.payload()).map_err(|error| WireError::Malformed {
            kind: self.prefix.kind,
            reason: error.to_string(),
        })
    }
}

/// A frame that carries a protobuf message.
///
/// # Errors
/// [`WireError::FrameTooLong`] if the message is larger than its type may be.
pub fn encode_message(
    kind: FrameType,
    flags: u8,
    message: &impl prost::Message,
) -> Result<Bytes, WireError> {
    let whole = PREFIX_BYTES + message.encoded_len();
    let len = u32::try_from(whole).unwrap_or(u32::MAX);
    let max = kind.bytes_max();
    if whole > max {
        return Err(WireError::FrameTooLong { kind, len, max });
    }
    let mut out = Vec::with_capacity(whole);
    let prefix = Prefix {
        len,
        kind,
        flags,
        codec: 0,
        extra: 0,
    };
    out.extend_from_slice(&prefix.encode());
    message
        .encode(&mut out)
        .expect("a Vec takes any number of bytes");
    Ok(out.into())
}
