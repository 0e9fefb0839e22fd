//! Guests that misbehave: what they do to others is nothing.

mod culprits;
mod deploys;
mod neighbours;
mod policies;
mod refusals;

const LOOP: &str = include_str!("../../hostile/loop.wat");
const MEMORY: &str = include_str!("../../hostile/memory.wat");
const PANIC: &str = include_str!("../../hostile/panic.wat");
const PICKY: &str = include_str!("../../hostile/picky.wat");
const SENTRY: &str = include_str!("../../hostile/sentry.wat");
const SUBTYPE: &str = include_str!("../../hostile/subtype.wat");

fn binary(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}
