//! `cargo xtask test`: every check and every test, in the order that finds mistakes soonest.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::steps::{Steps, run as run_command};
use crate::{guests, no_arguments, place, tidy};

/// The release whose rules `deny.toml` is written for.
const CARGO_DENY: &str = "cargo-deny@0.20.2";
/// The one profile that tests build; cargo compiles everything once.
const PROFILE: &str = "ci";

/// Runs everything. With `CI=true` warnings are errors and nothing that can be had is skipped.
///
/// # Errors
/// The first step that fails.
pub(crate) fn run(args: &[String]) -> Result<()> {
    no_arguments("test", args)?;
    let mut steps = Steps::new();
    if place::works(&mut place::cargo(["fmt", "--version"])) {
        steps.run("format", format)?;
    } else {
        steps.skip(
            "format",
            "rustfmt is not installed (`rustup component add rustfmt`)",
        );
    }
    steps.run("tidy", || tidy::run(&[]))?;
    supply_chain(&mut steps)?;
    steps.run("plugins", || guests::run(&[]))?;
    if place::works(&mut place::cargo(["clippy", "--version"])) {
        steps.run("clippy", clippy)?;
    } else {
        steps.skip(
            "clippy",
            "clippy is not installed (`rustup component add clippy`)",
        );
    }
    steps.run("documentation", documentation)?;
    // The black-box suites start the binary of this build, which `cargo test` alone need not make.
    steps.run("build", || {
        run_command(&mut place::cargo([
            "build",
            "--workspace",
            "--all-targets",
            "--profile",
            PROFILE,
        ]))
    })?;
    steps.run("tests", || {
        run_command(&mut place::cargo([
            "test",
            "--workspace",
            "--profile",
            PROFILE,
        ]))
    })?;
    steps.run("plugins' own tests", plugin_tests)?;
    steps.run("fuzz targets compile", fuzz_targets)?;
    steps.summary();
    Ok(())
}

fn format() -> Result<()> {
    run_command(&mut place::cargo(["fmt", "--all", "--", "--check"]))?;
    for manifest in separate_manifests()? {
        run_command(
            place::cargo(["fmt"])
                .arg("--manifest-path")
                .arg(manifest)
                .args(["--", "--check"]),
        )?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    let mut command = place::cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--profile",
        PROFILE,
    ]);
    if place::is_ci() {
        command.args(["--", "-D", "warnings"]);
    }
    run_command(&mut command)
}

fn documentation() -> Result<()> {
    let mut command = place::cargo(["doc", "--workspace", "--no-deps", "--profile", PROFILE]);
    if place::is_ci() {
        command.env("RUSTDOCFLAGS", "-D warnings");
    }
    run_command(&mut command)
}

/// Licences, sources and banned crates. Where `cargo deny` is missing, CI builds it once into the
/// target folder; elsewhere that would cost minutes for a check that rarely changes.
fn supply_chain(steps: &mut Steps) -> Result<()> {
    const NAME: &str = "supply chain";
    let tools = place::target().join("tools");
    let built = tools.join("bin/cargo-deny");
    let installed = place::works(&mut place::cargo(["deny", "--version"]));
    if !installed && !built.exists() {
        if !place::is_ci() {
            steps.skip(
                NAME,
                "cargo-deny is not installed (`cargo install --locked cargo-deny`)",
            );
            return Ok(());
        }
        steps.run("cargo-deny", || {
            run_command(
                place::cargo(["install", "--quiet", "--locked", CARGO_DENY, "--root"])
                    .arg(&tools)
                    .arg("--target-dir")
                    .arg(tools.join("build")),
            )
        })?;
    }
    steps.run(NAME, || {
        let mut command = if installed {
            place::cargo(["deny"])
        } else {
            let mut command = Command::new(&built);
            command.current_dir(place::root());
            command
        };
        run_command(command.args([
            "--log-level",
            "error",
            "check",
            "bans",
            "licenses",
            "sources",
        ]))
    })
}

/// Guests are workspaces of their own; their tests run natively.
fn plugin_tests() -> Result<()> {
    for manifest in guest_manifests()? {
        run_command(
            place::cargo(["test", "--manifest-path"])
                .arg(manifest)
                .arg("--target-dir")
                .arg(place::target().join("guests-native")),
        )?;
    }
    Ok(())
}

/// Without linking libFuzzer, which would need a C++ compiler.
fn fuzz_targets() -> Result<()> {
    run_command(
        place::cargo([
            "check",
            "--no-default-features",
            "--bins",
            "--manifest-path",
        ])
        .arg(place::root().join("fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(place::target().join("fuzz")),
    )
}

fn separate_manifests() -> Result<Vec<PathBuf>> {
    let mut manifests = guest_manifests()?;
    manifests.push(place::root().join("fuzz/Cargo.toml"));
    manifests.push(place::root().join("rig/Cargo.toml"));
    Ok(manifests)
}

fn guest_manifests() -> Result<Vec<PathBuf>> {
    let plugins = place::root().join("plugins");
    let mut manifests = Vec::new();
    for entry in plugins.read_dir().context("reading plugins/")? {
        let folder = entry?.path();
        let manifest = folder.join("Cargo.toml");
        if manifest.is_file() && folder != plugins.join("sdk") {
            manifests.push(manifest);
        }
    }
    manifests.sort();
    Ok(manifests)
}
