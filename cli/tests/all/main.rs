//! The built binary where no broker is needed: help, errors, contexts.
//!
//! `UPDATE_EXPECT=1 cargo test -p tidegate-cli` writes down what it prints now.

mod command;
mod contexts;
mod errors;
mod help;
mod plugin_new;
mod store;
