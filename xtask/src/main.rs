//! The chores of this repository, run as `cargo xtask VERB`.
#![expect(clippy::print_stderr, reason = "a command line tool reports to stderr")]

// The verbs.
mod demo;
mod fuzz;
mod guests;
mod test;
mod tidy;

// Where things are, and how a step is run.
mod place;
mod steps;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask demo [ARG…]              build everything and run the demonstration
cargo xtask test                     every check and every test
cargo xtask tidy                     the house rules that no compiler checks
cargo xtask guests [--toolchain T]   build the plugins (T: auto, rustup, debian)
cargo xtask fuzz [TARGET] [--seconds N] [--asan]   fuzz one target, or each in turn
cargo xtask fuzz-seeds               write the seeds of every corpus anew";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let Some((verb, rest)) = args.split_first() else {
        bail!("no verb given; there are\n{HELP}");
    };
    match verb.as_str() {
        "demo" => demo::run(rest),
        "test" => test::run(rest),
        "tidy" => tidy::run(rest),
        "guests" => guests::run(rest),
        "fuzz" => fuzz::run(rest),
        "fuzz-seeds" => fuzz::seeds(rest),
        "help" | "--help" | "-h" => {
            eprintln!("{HELP}");
            Ok(())
        }
        other => bail!("unknown verb `{other}`; there are\n{HELP}"),
    }
}

/// Refuses arguments of a verb that takes none.
fn no_arguments(verb: &str, args: &[String]) -> Result<()> {
    match args.first() {
        Some(extra) => bail!("`cargo xtask {verb}` takes no arguments; got `{extra}`"),
        None => Ok(()),
    }
}
