//! The front end and the client SDK against a broker in memory, over sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;
mod hostile;
mod mock;
mod stage;

use std::time::Duration;

/// How long a test waits for what must happen: far longer than it takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
