//! A real file system on a disk that remembers every write: `tidegate-rig` cuts its power, and lets
//! its blocks go bad. Root only, by hand; docs/durability.md says how.

mod cuts;
mod disk;
mod errors;
mod ledger;
mod mounts;
mod reader;
mod workload;

use std::path::Path;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
tidegate-rig cuts [--cuts N] [--seed N] [--seconds N]   cut the power at N places
             [--honest-one-in N]                        on a disk that forgets its other flushes
tidegate-rig errors [--seed N]                          let blocks be unreadable
Root only. All mounts live in a namespace of their own, which no other process sees.";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = args.split_first() else {
        bail!(USAGE);
    };
    match command.as_str() {
        // The process that reads while blocks go bad: the rig looks on whether it lives.
        "read" => return reader::main(Path::new(rest.first().context(USAGE)?)),
        // The process that works on the log while the disk records.
        "work" => return workload::Order::parse(rest).context(USAGE)?.carry_out(),
        "cuts" | "errors" => {}
        _ => bail!(USAGE),
    }
    if !mounts::is_apart() {
        return mounts::run_apart(&args);
    }
    match command.as_str() {
        "cuts" => cuts::run(&cuts::Wanted {
            cuts: number(rest, "--cuts")?.unwrap_or(300),
            seed: number(rest, "--seed")?.unwrap_or(1),
            seconds: number(rest, "--seconds")?.unwrap_or(5),
            honest_one_in: usize::try_from(number(rest, "--honest-one-in")?.unwrap_or(1))?,
        }),
        _ => errors::run(number(rest, "--seed")?.unwrap_or(1)),
    }
}

fn number(args: &[String], name: &str) -> Result<Option<u64>> {
    let Some(at) = args.iter().position(|arg| arg == name) else {
        return Ok(None);
    };
    let number = args.get(at + 1).context(USAGE)?;
    Ok(Some(number.parse().context(USAGE)?))
}
