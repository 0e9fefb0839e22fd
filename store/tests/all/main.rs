//! The store seen from outside: through its public calls only.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "test code; clippy sees that only in functions marked as tests"
)]

mod support;

mod ack;
mod backup;
mod backup_repair;
mod check;
mod compact;
mod faults;
mod find;
mod formats;
mod full_disk;
mod gaps;
mod health;
mod limits;
mod lost;
mod model;
mod power_cut;
mod reclaim;
mod recovery;
mod repair;
mod retention;
mod rot;
