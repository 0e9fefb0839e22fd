//! `cargo xtask demo`: builds the broker and its plugins, then shows a week of flights.

use std::env;
use std::process::Command;

use anyhow::Result;

use crate::steps::{Steps, run as run_command};
use crate::{guests, place};

/// Builds everything and runs the demonstration; `args` go to `tidegate demo`.
///
/// # Errors
/// If a build or the demonstration fails.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut steps = Steps::new();
    steps.run("plugins", || guests::run(&[]))?;
    steps.run("broker", || {
        run_command(&mut place::cargo([
            "build",
            "--release",
            "--package",
            "tidegate-cli",
        ]))
    })?;
    let root = place::root();
    let binary = place::target()
        .join("release")
        .join(format!("tidegate{}", env::consts::EXE_SUFFIX));
    run_command(
        Command::new(binary)
            .current_dir(&root)
            .arg("demo")
            .arg("--plugin")
            .arg(place::target().join("guests/flights-late.wasm"))
            .arg("--flights")
            .arg(root.join("examples/flights/week.jsonl.gz"))
            .args(args),
    )
}
