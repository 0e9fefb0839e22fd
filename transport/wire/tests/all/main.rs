//! The protocol from outside: both sessions against each other, on virtual time, over a transport that
//! delays, cuts and reorders; and each of them against bytes that no peer should send.

mod consuming;
mod decoding;
mod fixtures;
mod hostile;
mod pair;
mod producing;
mod requests;
mod welcome;
