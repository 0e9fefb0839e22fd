//! The protocol from outside: both sessions against each other, on virtual time, over a transport that
//! delays, cuts and reorders; and each of them against bytes that no peer should send.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

mod consuming;
mod decoding;
mod documented;
mod fixtures;
mod hostile;
mod liveness;
mod pair;
mod producing;
mod requests;
mod welcome;
