//! Which crate may import which. A new arrow is a decision: change the table in a commit of its own
//! that says why, and `docs/ARCHITECTURE.md` with it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Finding;
use crate::place;

/// Left imports right, and nothing else of this workspace.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("wit", &[]),
    ("store", &["model"]),
    ("broker", &["model"]),
    ("runtime", &["model", "wit"]),
    ("plugins/sdk", &["model"]),
    ("transport/wire", &["model"]),
    // Both ends move bytes alike; in `transport/quic` it would bring the client the broker's types.
    ("transport/pump", &["transport/wire", "model"]),
    ("transport/session", &["broker", "model"]),
    (
        "transport/quic",
        &[
            "transport/pump",
            "transport/session",
            "transport/wire",
            "broker",
            "model",
        ],
    ),
    (
        "server",
        &[
            "transport/quic",
            "transport/session",
            "transport/wire",
            "runtime",
            "store",
            "broker",
            "model",
        ],
    ),
    ("client", &["transport/pump", "transport/wire", "model"]),
    // `plugin build` wraps a guest with the world's text.
    ("cli", &["client", "server", "model", "wit"]),
    // `guests` wraps the plugins as components.
    ("xtask", &["wit"]),
];

/// What tests import besides: both ends of a connection.
const TEST_ARROWS: &[(&str, &[&str])] = &[("transport/quic", &["client"])];

/// Black-box suites and benches look at every crate.
const FREE: &[&str] = &["sandbox-tests", "bench", "fuzz"];

/// Guests see the SDK only.
const GUEST_ARROWS: &[&str] = &["plugins/sdk"];

/// What would give a crate the I/O, clock or engine that it must not know.
const ABSENT: &[(&str, &[&str])] = &[
    (
        "model",
        &["tokio", "quinn", "rustls", "wasmtime", "memmap2", "rustix"],
    ),
    (
        "broker",
        &["tokio", "quinn", "rustls", "wasmtime", "memmap2", "rustix"],
    ),
    ("store", &["tokio", "quinn", "rustls", "wasmtime"]),
    (
        "transport/wire",
        &["tokio", "quinn", "rustls", "wasmtime", "memmap2", "rustix"],
    ),
    ("runtime", &["quinn", "rustls", "memmap2"]),
];

/// Reads the manifests of the workspace and of every guest, through cargo.
///
/// # Errors
/// If cargo can't read a manifest.
pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut manifests = vec![root.join("Cargo.toml")];
    for entry in root
        .join("plugins")
        .read_dir()
        .context("reading plugins/")?
    {
        let manifest = entry?.path().join("Cargo.toml");
        if manifest.is_file() && !manifest.starts_with(root.join("plugins/sdk")) {
            manifests.push(manifest);
        }
    }
    let mut findings = Vec::new();
    for manifest in manifests {
        findings.extend(judge(&packages(root, &metadata(&manifest)?)?));
    }
    Ok(findings)
}

/// A crate and what its manifest names.
#[derive(Debug, PartialEq)]
struct Package {
    /// Folder, relative to the checkout.
    folder: PathBuf,
    imports: Vec<Import>,
}

#[derive(Debug, PartialEq)]
enum Import {
    /// A crate of this checkout, by folder.
    Own(PathBuf),
    /// The same, for tests only.
    OwnInTests(PathBuf),
    /// Any other, by name.
    Foreign(String),
}

fn metadata(manifest: &Path) -> Result<Value> {
    let output = place::cargo(["metadata", "--no-deps", "--format-version", "1"])
        .arg("--manifest-path")
        .arg(manifest)
        .output()
        .context("starting `cargo metadata`")?;
    if !output.status.success() {
        bail!(
            "`cargo metadata` of {} failed: {}",
            manifest.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    serde_json::from_slice(&output.stdout).context("reading the output of `cargo metadata`")
}

fn packages(root: &Path, metadata: &Value) -> Result<Vec<Package>> {
    let list = metadata["packages"]
        .as_array()
        .context("cargo lists no packages")?;
    list.iter()
        .map(|package| {
            let manifest = package["manifest_path"]
                .as_str()
                .context("no manifest path")?;
            let folder = Path::new(manifest).parent().unwrap_or(root);
            let dependencies = package["dependencies"]
                .as_array()
                .context("no dependencies")?;
            let imports = dependencies
                .iter()
                .map(|found| match found["path"].as_str() {
                    Some(path) if found["kind"] == "dev" => {
                        Import::OwnInTests(relative(root, Path::new(path)))
                    }
                    Some(path) => Import::Own(relative(root, Path::new(path))),
                    None => Import::Foreign(found["name"].as_str().unwrap_or_default().to_owned()),
                });
            Ok(Package {
                folder: relative(root, folder),
                imports: imports.collect(),
            })
        })
        .collect()
}

fn relative(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_path_buf()
}

fn judge(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let name = package.folder.to_string_lossy();
        let manifest = package.folder.join("Cargo.toml");
        if FREE.contains(&&*name) {
            continue;
        }
        let is_guest = package.folder.starts_with("plugins") && name != "plugins/sdk";
        let allowed = match ARROWS.iter().find(|(from, _)| *from == name) {
            Some((_, allowed)) => allowed,
            None if is_guest => GUEST_ARROWS,
            None => {
                findings.push(Finding::new(
                    &manifest,
                    0,
                    "no arrow starts at this crate; add it to the table of `cargo xtask tidy`",
                ));
                continue;
            }
        };
        let absent = row(ABSENT, &name);
        let in_tests = row(TEST_ARROWS, &name);
        let is_allowed =
            |to: &Path, more: &[&str]| allowed.iter().chain(more).any(|ok| Path::new(ok) == to);
        for import in &package.imports {
            let more = match import {
                Import::OwnInTests(_) => in_tests,
                Import::Own(_) | Import::Foreign(_) => &[],
            };
            match import {
                Import::Own(to) | Import::OwnInTests(to) if !is_allowed(to, more) => {
                    findings.push(Finding::new(
                        &manifest,
                        0,
                        format!(
                            "{name} may not import {}; it may import: {}",
                            to.display(),
                            list(allowed)
                        ),
                    ));
                }
                Import::Foreign(to) if absent.contains(&to.as_str()) => {
                    findings.push(Finding::new(
                        &manifest,
                        0,
                        format!("{name} must not know {to}"),
                    ));
                }
                Import::Own(_) | Import::OwnInTests(_) | Import::Foreign(_) => {}
            }
        }
    }
    findings
}

fn row(table: &[(&str, &'static [&'static str])], name: &str) -> &'static [&'static str] {
    table
        .iter()
        .find(|(from, _)| *from == name)
        .map_or(&[], |(_, row)| row)
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "no other crate of the workspace".into()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(folder: &str, own: &[&str], foreign: &[&str]) -> Package {
        Package {
            folder: folder.into(),
            imports: own
                .iter()
                .map(|path| Import::Own(path.into()))
                .chain(foreign.iter().map(|name| Import::Foreign((*name).into())))
                .collect(),
        }
    }

    fn judge_one(package: Package) -> Vec<String> {
        judge(&[package]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn allowed_arrows_pass() {
        assert!(judge_one(package("broker", &["model"], &["bytes"])).is_empty());
        assert!(judge_one(package("bench", &["store", "client"], &["tokio"])).is_empty());
        assert!(judge_one(package("plugins/flights-late", &["plugins/sdk"], &[])).is_empty());
    }

    #[test]
    fn other_arrows_are_found() {
        assert_eq!(
            judge_one(package("broker", &["model", "store"], &[])),
            ["broker/Cargo.toml: broker may not import store; it may import: model"]
        );
        assert_eq!(
            judge_one(package("plugins/flights-late", &["model"], &[])).len(),
            1
        );
        assert_eq!(judge_one(package("model", &["wit"], &[])).len(), 1);
    }

    #[test]
    fn tests_may_import_the_other_end() {
        let quic = |import| Package {
            folder: "transport/quic".into(),
            imports: vec![import],
        };
        assert!(judge_one(quic(Import::OwnInTests("client".into()))).is_empty());
        assert_eq!(judge_one(quic(Import::Own("client".into()))).len(), 1);
        assert_eq!(judge_one(quic(Import::OwnInTests("store".into()))).len(), 1);
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(judge_one(package("extras", &[], &[])).len(), 1);
    }

    #[test]
    fn what_must_be_absent_is_found() {
        assert_eq!(
            judge_one(package("broker", &[], &["tokio"])),
            ["broker/Cargo.toml: broker must not know tokio"]
        );
    }

    #[test]
    fn manifests_are_read_as_cargo_prints_them() {
        let metadata = serde_json::json!({"packages": [{
            "manifest_path": "/checkout/broker/Cargo.toml",
            "dependencies": [
                {"name": "tidegate-model", "path": "/checkout/model"},
                {"name": "bytes", "path": null},
            ],
        }]});
        assert_eq!(
            packages(Path::new("/checkout"), &metadata).unwrap(),
            [package("broker", &["model"], &["bytes"])]
        );
    }
}
