//! What suites over several crates share.
//!
//! Feature `harness` (default): a broker and the command line as their users run them, as processes.
//! [`fuzzing`] has the bodies of the fuzz targets, for `fuzz/` and for the test that replays their corpora.
//! The suites themselves are in `tests/all`.

// What the fuzz targets do, and the seeds they start from.
pub mod fuzzing;

// A broker as a process on a data folder, the command line, and waiting for conditions.
#[cfg(feature = "harness")]
mod broker;
#[cfg(feature = "harness")]
mod deadline;
#[cfg(feature = "harness")]
mod tidegate;

#[cfg(feature = "harness")]
pub use broker::BrokerProcess;
#[cfg(feature = "harness")]
pub use deadline::{DEADLINE, eventually, within};
#[cfg(feature = "harness")]
pub use tidegate::{Finished, Tidegate, exit_code, send_signal};
