//! Typed property values.

use alloc::string::String;
use alloc::vec::Vec;

/// A property's value, owned.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Present without a value.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    I64(i64),
    /// An IEEE 754 double.
    F64(f64),
    /// UTF-8 text.
    String(String),
    /// Anything.
    Bytes(Vec<u8>),
}

/// A property's value, read in place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// Present without a value.
    Null,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    I64(i64),
    /// An IEEE 754 double.
    F64(f64),
    /// UTF-8 text.
    Str(&'a str),
    /// Anything.
    Bytes(&'a [u8]),
    /// A type that this version doesn't know; type byte and raw bytes.
    Unknown(u8, &'a [u8]),
}

pub(crate) const TYPE_NULL: u8 = 0;
pub(crate) const TYPE_BOOL: u8 = 1;
pub(crate) const TYPE_I64: u8 = 2;
pub(crate) const TYPE_F64: u8 = 3;
pub(crate) const TYPE_STRING: u8 = 4;
pub(crate) const TYPE_BYTES: u8 = 5;

impl Value {
    /// This value, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Bool(v) => ValueRef::Bool(*v),
            Self::I64(v) => ValueRef::I64(*v),
            Self::F64(v) => ValueRef::F64(*v),
            Self::String(v) => ValueRef::Str(v),
            Self::Bytes(v) => ValueRef::Bytes(v),
        }
    }
}

impl<'a> ValueRef<'a> {
    /// An owned copy; a type that this version doesn't know becomes bytes.
    #[must_use]
    pub fn to_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(v) => Value::Bool(v),
            Self::I64(v) => Value::I64(v),
            Self::F64(v) => Value::F64(v),
            Self::Str(v) => Value::String(v.into()),
            Self::Bytes(v) | Self::Unknown(_, v) => Value::Bytes(v.into()),
        }
    }

    /// The text, if this is text.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            Self::Str(v) => Some(v),
            _ => None,
        }
    }

    /// The integer, if this is one.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Self::I64(v) => Some(v),
            _ => None,
        }
    }

    /// The number, if this is an integer or a double.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "integers above 2^53 round, as in SQL"
    )]
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Self::F64(v) => Some(v),
            Self::I64(v) => Some(v as f64),
            _ => None,
        }
    }

    /// The truth value, if this is one.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self {
            Self::Bool(v) => Some(v),
            _ => None,
        }
    }

    pub(crate) fn type_byte(self) -> u8 {
        match self {
            Self::Null => TYPE_NULL,
            Self::Bool(_) => TYPE_BOOL,
            Self::I64(_) => TYPE_I64,
            Self::F64(_) => TYPE_F64,
            Self::Str(_) => TYPE_STRING,
            Self::Bytes(_) => TYPE_BYTES,
            Self::Unknown(t, _) => t,
        }
    }

    /// Bytes of the encoded value.
    pub(crate) fn encoded_len(self) -> usize {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::I64(_) | Self::F64(_) => 8,
            Self::Str(v) => v.len(),
            Self::Bytes(v) | Self::Unknown(_, v) => v.len(),
        }
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::Bool(v) => out.push(u8::from(v)),
            Self::I64(v) => out.extend_from_slice(&v.to_le_bytes()),
            Self::F64(v) => out.extend_from_slice(&v.to_le_bytes()),
            Self::Str(v) => out.extend_from_slice(v.as_bytes()),
            Self::Bytes(v) | Self::Unknown(_, v) => out.extend_from_slice(v),
        }
    }

    /// Reads a value of type `kind`; `None` where bytes and type don't fit.
    pub(crate) fn decode(kind: u8, bytes: &'a [u8]) -> Option<Self> {
        Some(match kind {
            TYPE_NULL if bytes.is_empty() => Self::Null,
            TYPE_BOOL => match bytes {
                [0] => Self::Bool(false),
                [1] => Self::Bool(true),
                _ => return None,
            },
            TYPE_I64 => Self::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
            TYPE_F64 => Self::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
            TYPE_STRING => Self::Str(core::str::from_utf8(bytes).ok()?),
            TYPE_BYTES => Self::Bytes(bytes),
            TYPE_NULL => return None,
            other => Self::Unknown(other, bytes),
        })
    }
}
