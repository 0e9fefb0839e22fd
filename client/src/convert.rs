//! Between this crate's types and the protobuf messages of the wire.

mod from_wire;
mod to_wire;

pub(crate) use from_wire::{
    cursor_move, gap, group_info, level, name, plugin_info, server_info, topic_info, view_info,
};
pub(crate) use to_wire::{
    binding, group_ref, millis, namespace, plugin_ref, policy, source_ref, start_at, topic_ref,
    view_ref,
};

use tidegate_model::code;
use tidegate_wire::Refusal;

use crate::Error;

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.code,
            message: refusal.message,
            hint: refusal.hint,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self {
            code: error.code,
            message: error.message,
            hint: error.hint,
        }
    }
}

impl From<tidegate_wire::WireError> for Error {
    fn from(error: tidegate_wire::WireError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// The server's answer lacks something that this version needs.
pub(crate) fn incomplete(what: &str) -> Error {
    Error::new(code::PROTOCOL, format!("the server's answer has no {what}"))
        .hint("client and server may be of different versions")
}
