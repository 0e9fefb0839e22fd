//! `cargo xtask fuzz`: builds a fuzz target with coverage counters and runs it; works with stable Rust.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::steps::run as run_command;
use crate::{no_arguments, place};

/// Seconds that a target runs unless told otherwise.
const SECONDS: u64 = 60;
/// MiB of memory at which a run counts as a finding: decoders allocate only what they have checked.
const MEMORY_MIB_MAX: u32 = 1024;
/// Seconds after which one input counts as a finding.
const INPUT_SECONDS_MAX: u32 = 5;
/// The counters that libFuzzer steers by, as cargo-fuzz switches them on.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "--cfg=fuzzing",
];

#[derive(Debug, PartialEq)]
struct Options {
    target: Option<String>,
    seconds: u64,
    address_sanitizer: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self {
            target: None,
            seconds: SECONDS,
            address_sanitizer: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--seconds" => {
                    let value = args.next().context("--seconds wants a number")?;
                    options.seconds = value
                        .parse()
                        .with_context(|| format!("--seconds wants a number; got `{value}`"))?;
                }
                "--asan" => options.address_sanitizer = true,
                flag if flag.starts_with('-') => bail!("unknown option `{flag}`"),
                _ if options.target.is_some() => bail!("give one target, or none for all"),
                name => options.target = Some(name.to_owned()),
            }
        }
        Ok(options)
    }
}

/// Fuzzes the named target, or each in turn.
///
/// # Errors
/// If a target is unknown, does not build, or found something; the input lies in `fuzz/artifacts`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let fuzz = place::root().join("fuzz");
    let mut targets = targets(&fuzz)?;
    if let Some(only) = &options.target {
        if !targets.contains(only) {
            bail!("no fuzz target `{only}`; there are: {}", targets.join(", "));
        }
        targets.retain(|name| name == only);
    }
    for target in &targets {
        eprintln!("==> fuzz {target}: {} s", options.seconds);
        fuzz_one(&fuzz, target, &options)?;
    }
    Ok(())
}

/// Writes the seeds of every target's corpus anew.
///
/// # Errors
/// If the seeder does not build or can't write.
pub(crate) fn seeds(args: &[String]) -> Result<()> {
    no_arguments("fuzz-seeds", args)?;
    run_command(
        place::cargo([
            "run",
            "--no-default-features",
            "--bin",
            "seeds",
            "--manifest-path",
        ])
        .arg(place::root().join("fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(place::target().join("fuzz")),
    )
}

fn targets(fuzz: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(fuzz.join("fuzz_targets")).context("reading fuzz/fuzz_targets")? {
        let path = entry?.path();
        if let Some(name) = path.file_stem() {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn fuzz_one(fuzz: &Path, target: &str, options: &Options) -> Result<()> {
    let host = host()?;
    let mut flags = COVERAGE.join(" ");
    if options.address_sanitizer {
        flags.push_str(" -Zsanitizer=address");
    }
    let build_dir = place::target().join(if options.address_sanitizer {
        "fuzz-asan"
    } else {
        "fuzz"
    });
    // With a target named, cargo leaves build scripts and macros without counters.
    let mut build = place::cargo(["build", "--release", "--bin", target, "--target", &host]);
    build
        .arg("--manifest-path")
        .arg(fuzz.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&build_dir)
        .env("RUSTFLAGS", flags);
    if options.address_sanitizer {
        build.env("RUSTC_BOOTSTRAP", "1");
    }
    run_command(&mut build)?;

    let found = build_dir.join("corpus").join(target);
    let artifacts = fuzz.join("artifacts").join(target);
    fs::create_dir_all(&found).with_context(|| format!("creating {}", found.display()))?;
    fs::create_dir_all(&artifacts).with_context(|| format!("creating {}", artifacts.display()))?;
    run_command(
        Command::new(build_dir.join(&host).join("release").join(target))
            // New inputs go to the first folder, so the committed seeds stay as they are.
            .arg(&found)
            .arg(fuzz.join("corpus").join(target))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(format!("-max_total_time={}", options.seconds))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg("-print_final_stats=1"),
    )
    .with_context(|| format!("fuzz target `{target}` found something; see fuzz/artifacts/{target}"))
}

fn host() -> Result<String> {
    let output = place::cargo(["--version", "--verbose"])
        .output()
        .context("asking cargo for its host")?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .context("cargo does not name its host")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        Options::parse(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        let options = parse(&["record", "--seconds", "5", "--asan"]).unwrap();
        assert_eq!(options.target.as_deref(), Some("record"));
        assert_eq!(options.seconds, 5);
        assert!(options.address_sanitizer);
        assert_eq!(parse(&[]).unwrap().seconds, SECONDS);
    }

    #[test]
    fn wrong_options_are_refused() {
        for wrong in [
            &["--seconds"][..],
            &["--seconds", "x"],
            &["--fast"],
            &["a", "b"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?} passed");
        }
    }
}
