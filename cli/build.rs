//! Packs the plugin SDK's sources, which `tidegate plugin new` writes, and tells the binary which commit
//! it is built from, where it is built from a clone.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What a guest needs, relative to the checkout: the folders with all Rust files in them.
const SOURCES: [&str; 5] = [
    "model/src",
    "plugins/sdk/src",
    "wit/filter.wit",
    "LICENSE",
    "NOTICE",
];
/// Modules of tests alone, which no dependency compiles.
const TESTS: &str = "tests.rs";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let version = env!("CARGO_PKG_VERSION");
    let version = match commit() {
        Some(commit) => format!("{version} ({commit})"),
        None => version.to_owned(),
    };
    println!("cargo::rustc-env=TIDEGATE_VERSION={version}");
    pack_sdk()
}

fn commit() -> Option<String> {
    // Sources that were unpacked within somebody else's clone are of no commit.
    git(&["ls-files", "--error-unmatch", "Cargo.toml"])?;
    // The log of HEAD gets a line with every commit and checkout.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        // A file that isn't there would have this run each time.
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Writes `sdk_sources.rs`: an array of paths and texts.
fn pack_sdk() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().ok_or("this crate is in a checkout")?;
    let mut files = Vec::new();
    for source in SOURCES {
        let path = root.join(source);
        println!("cargo::rerun-if-changed={}", path.display());
        collect(&path, &mut files)?;
    }
    files.sort();
    let mut array = String::from("[\n");
    for file in files {
        let relative = file.strip_prefix(root)?;
        writeln!(array, "({relative:?}, include_str!({file:?})),")?;
    }
    array.push_str("]\n");
    let out = PathBuf::from(env::var("OUT_DIR")?).join("sdk_sources.rs");
    Ok(fs::write(out, array)?)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else if path.file_name().is_none_or(|name| name != TESTS) {
        files.push(path.to_path_buf());
    }
    Ok(())
}
