//! How a peer says no, and how this end calls bytes wrong.

use core::fmt;

use tidegate_model::{Code, code};

use crate::limits::TEXT_BYTES_MAX;
use crate::proto;

/// A refusal: nothing of what was asked took effect, unless the code says that this is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind, for programs; may be a number that this version doesn't know.
    pub code: Code,
    /// The object, the limit and what was found, for people.
    pub message: String,
    /// What to do next; empty where the code's own text says it all.
    pub hint: String,
}

impl Refusal {
    /// A refusal without a hint of its own.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: String::new(),
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// What a bare code says, as in a reset or a connection's close: the peer's own words are used
    /// where there are some.
    #[must_use]
    pub fn from_code(code: Code, fallback: &str) -> Self {
        Self::new(code, format!("{fallback} ({})", code.name()))
    }

    /// As received, `internal` where the peer said nothing.
    #[must_use]
    pub fn from_optional(refused: Option<proto::Refused>) -> Self {
        refused.map_or_else(
            || Self::new(code::INTERNAL, "the peer gave no reason"),
            Self::from_proto,
        )
    }

    /// As it travels: texts are cut to [`TEXT_BYTES_MAX`].
    #[must_use]
    pub fn to_proto(&self) -> proto::Refused {
        proto::Refused {
            code: u32::from(self.code.0),
            message: cut(&self.message).to_owned(),
            hint: cut(&self.hint).to_owned(),
        }
    }

    /// As received. A code above 16 bits is from another world and reads as `internal`.
    #[must_use]
    pub fn from_proto(refused: proto::Refused) -> Self {
        Self {
            code: u16::try_from(refused.code).map_or(code::INTERNAL, Code),
            message: refused.message,
            hint: refused.hint,
        }
    }
}

/// `text` up to [`TEXT_BYTES_MAX`], not within a character.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.code, self.message)
    }
}

impl core::error::Error for Refusal {}

/// Bytes that the protocol doesn't allow. The connection, or the stream, ends with the code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame is longer than its type may be.
    #[error("a {kind} frame has at most {max} bytes; this one announces {len}")]
    FrameTooLong {
        /// Type of the frame.
        kind: crate::FrameType,
        /// Bytes announced.
        len: u32,
        /// The limit.
        max: usize,
    },
    /// A frame is shorter than its header.
    #[error("a {kind} frame has at least {min} bytes; this one has {len}")]
    FrameTooShort {
        /// Type of the frame.
        kind: crate::FrameType,
        /// Bytes it has.
        len: u32,
        /// The bytes of its header.
        min: usize,
    },
    /// A frame that has no place here.
    #[error("a {kind} frame is not allowed {place}")]
    Unexpected {
        /// Type of the frame.
        kind: crate::FrameType,
        /// Where it came.
        place: &'static str,
    },
    /// A protobuf message that can't be decoded.
    #[error("the {kind} frame is malformed: {reason}")]
    Malformed {
        /// Type of the frame.
        kind: crate::FrameType,
        /// What is wrong.
        reason: String,
    },
    /// Something was said more often or in larger numbers than was granted.
    #[error("{what}: {found}, where at most {max} are allowed")]
    Exceeded {
        /// What is limited.
        what: &'static str,
        /// How many there would be.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// A number that stands for nothing.
    #[error("{what} {number} was never announced")]
    Unknown {
        /// What it should be.
        what: &'static str,
        /// The number.
        number: u64,
    },
    /// The stream ended within a frame.
    #[error("the stream ended {missing} bytes before its frame did")]
    Truncated {
        /// Bytes that are missing.
        missing: u64,
    },
}

impl WireError {
    /// The code to close or reset with.
    #[must_use]
    pub fn code(&self) -> Code {
        code::PROTOCOL
    }

    /// As a refusal of something that this end was asked to send.
    #[must_use]
    pub fn to_argument(&self) -> Refusal {
        Refusal::new(code::INVALID_ARGUMENT, self.to_string())
    }

    /// As a refusal of what the peer sent.
    #[must_use]
    pub fn to_refusal(&self) -> Refusal {
        Refusal::new(self.code(), self.to_string())
    }
}
