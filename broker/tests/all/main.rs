//! The broker from outside: a node without disk or network carries out its effects.

#![expect(
    clippy::unwrap_used,
    reason = "the lint's exception for tests doesn't reach what helps them"
)]

mod access;
mod admin;
mod compaction;
mod consume;
mod model;
mod node;
mod produce;
mod retention;
