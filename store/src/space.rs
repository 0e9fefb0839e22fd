//! Giving space back: what may go by which rule, and the segments that it leaves behind.

mod expire;
mod rule;

pub use expire::{Expiry, Trims};
pub use rule::Rule;
