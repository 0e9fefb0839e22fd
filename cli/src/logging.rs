//! The log, on standard error.

use std::env;
use std::io;

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::EnvFilter;

use crate::failure::{Failure, Result};

/// The environment variable with the filter.
pub(crate) const VARIABLE: &str = "TIDEGATE_LOG";

/// Begins to log what `filter` lets through: `info`, or `warn,tidegate_store=debug`.
pub(crate) fn start(filter: &str) -> Result<()> {
    let filter = EnvFilter::builder().parse(filter).map_err(|error| {
        Failure::usage(format!("{filter:?} is no log filter"))
            .because(error.to_string())
            .hint("write a level such as info, or warn,tidegate_store=debug")
    })?;
    let colors = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colors)
        .with_writer(io::stderr)
        .init();
    Ok(())
}

/// The same where the environment asks for it: commands other than `serve` log nothing by default.
pub(crate) fn start_if_asked() -> Result<()> {
    match env::var(VARIABLE) {
        Ok(filter) if !filter.is_empty() => start(&filter),
        _ => Ok(()),
    }
}
