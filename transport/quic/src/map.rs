//! Between the messages of the wire and the broker's requests and replies.
//!
//! Text becomes a name here and nowhere else: a name that breaks a rule, a missing part or a number
//! out of bounds is refused before the broker hears of the request.

mod data;
mod name;
mod reply;
mod request;

pub(crate) use data::{OpenedProducer, delivery, gap, publish, published, read, runs};
pub(crate) use name::{group, source, start, topic};
pub(crate) use reply::{queue, reply};
pub(crate) use request::request;

use tidegate_broker::Refusal;

/// A refusal as the wire has it.
pub(crate) fn refused(refusal: Refusal) -> tidegate_wire::Refusal {
    tidegate_wire::Refusal {
        code: refusal.code,
        message: refusal.message,
        hint: refusal.hint,
    }
}
