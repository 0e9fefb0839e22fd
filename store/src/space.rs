//! Giving space back: what may go by which rule, and the segments that it leaves behind.
//!
//! Policy and arithmetic: `docs/adr/0018-segments-are-rewritten-in-their-slots.md`. What a full
//! disk does: `docs/adr/0019-a-reserve-for-the-full-disk.md`.

mod compact;
mod expire;
mod nudge;
mod reclaim;
mod recount;
mod reserve;
mod rewrite;
mod rule;
mod sieve;

pub use compact::{CompactedRun, Compaction};
pub use expire::{Expiry, Trims};
pub use rule::Rule;

pub(crate) use nudge::Nudge;
pub(crate) use reclaim::{Space, SpaceStats};
pub(crate) use reserve::Reserve;
