//! The plugin host from outside: good guests, refused components, hostile guests, and what is left
//! of them afterwards.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first surprise, also in its helpers"
)]

mod guest;
mod support;

mod bytes;
mod calls;
mod hostile;
mod install;
mod memory;
mod restart;
