//! The one `tidegate` binary: the broker, and everything that is done with it from a shell.
//!
//! In reading order: [`app`] has the grammar and the way from arguments to an exit status; nearly
//! each noun and verb has a file of its own; [`output`] and [`failure`] say how results and errors look.

// What all verbs share.
mod allocator;
mod app;
mod confirm;
mod failure;
mod interrupt;
mod logging;
mod names;
mod output;
mod table;
mod units;

// The broker, and the way to one.
mod connect;
mod context;
mod login;
mod ready;
mod secret;
mod serve;

// Nouns.
mod binding;
mod client;
mod group;
mod message;
mod plugin;
mod topic;
mod view;

// Messages in and out.
mod consume;
mod input;
mod line;
mod progress;
mod publish;

// Data folders.
mod backup;
mod store;

// For newcomers.
mod demo;
mod help;

use std::process::ExitCode;

fn main() -> ExitCode {
    app::main()
}
