//! Suites that run the built binary over real sockets, on a data folder of their own.
//!
//! [`e2e`] what works; [`bad_input`] what is refused, and how it is said; [`hostile`] guests that
//! misbehave; [`crash`] a broker that is killed at random moments. Two are without a process: [`sim`], a
//! node on a simulated disk whose power is cut, and [`clock`], a node whose machine's clock is set.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on ends with the reason"
)]

mod flights;
mod machine;
mod sandbox;
mod sdk;

mod bad_input;
mod clock;
mod crash;
mod e2e;
mod hostile;
mod sim;
