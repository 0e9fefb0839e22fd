//! The plugin host from outside: good guests, refused components, hostile guests, and what is left
//! of them afterwards.

mod guest;
mod support;

mod bytes;
mod calls;
mod hostile;
mod install;
mod memory;
mod restart;
