//! What works, from the built binary's command line or through the SDK.

mod authors;
mod backup;
mod clients;
mod compaction;
mod damage;
mod ends;
mod examples;
mod finding;
mod flights;
mod groups;
mod log;
mod node;
mod offline;
mod retention;
mod retries;
