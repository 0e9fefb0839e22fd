//! The memory allocator, and how what the broker no longer uses goes back to the system.

use std::hint::black_box;
use std::time::Duration;

use mimalloc::MiMalloc;
use tokio::time::{MissedTickBehavior, interval};

/// The C library's allocator keeps large freed blocks: a node with a million queues took twice the
/// memory.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The allocator gives memory back a second after it was freed, but looks for such memory only when
/// it hands out or takes back a page: one that is called no more keeps all of it.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(1);
/// Far above the 64 KiB up to which blocks share a page, so that a block of it is a page of its own.
/// Nothing is written to it, so the system never finds memory for it.
const PAGE_BYTES: usize = 1 << 20;

/// Has tables that are half empty take what they use: a huge page is 2 MiB of memory for whatever
/// touches a byte of it.
pub(crate) fn use_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "huge pages of memory stay on: the broker takes more than it needs");
    }
}

/// Gives back what was freed, for as long as it is polled.
pub(crate) async fn give_back() {
    let mut ticks = interval(GIVE_BACK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        drop(black_box(Vec::<u8>::with_capacity(PAGE_BYTES)));
    }
}
