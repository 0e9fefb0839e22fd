//! Which Rust builds a plugin: the one on the path, if it has the target's library, else Debian's
//! packages, which build that library along with the plugin.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidegate_model::code;

use crate::failure::{Failure, Result};

/// The target of plugins: no WASI, so that they import nothing.
pub(super) const TARGET: &str = "wasm32-unknown-unknown";

/// By absolute path: another cargo is most often first on the path.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
/// The source of the standard library.
const DEBIAN_LIBRARY: &str = "/usr/lib/rustlib/src/rust/library/Cargo.lock";
/// Where LLVM's linkers are, `wasm-ld` with a version behind it.
const DEBIAN_BIN: &str = "/usr/bin";
const LINKER: &str = "wasm-ld";
const DEBIAN_INSTALL: &str = "apt-get install rustc-web cargo-web rust-web-src lld-19";

/// A Rust that is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Toolchain {
    /// The one on the path, with the target's library installed.
    Installed,
    /// Debian's, with this linker.
    Debian { linker: PathBuf },
}

impl Toolchain {
    /// The one that builds a plugin on this machine.
    ///
    /// # Errors
    /// Says what to install.
    pub(super) fn find() -> Result<Self> {
        let lacks = match has_target() {
            Ok(true) => return Ok(Self::Installed),
            Ok(false) => "the target's standard library isn't installed".to_owned(),
            Err(error) => format!("rustc can't be started: {error}"),
        };
        debian().ok_or_else(|| {
            Failure::new(
                code::GUEST_TOOLCHAIN,
                format!("no Rust here can build for {TARGET}"),
            )
            .because(lacks)
            .hint(format!(
                "with rustup: rustup target add {TARGET}; as root on Debian: {DEBIAN_INSTALL}"
            ))
        })
    }

    /// A cargo that builds a plugin in release mode for [`TARGET`].
    pub(super) fn cargo_build(&self) -> Command {
        let mut command = match self {
            Self::Installed => Command::new(tool("CARGO", "cargo")),
            Self::Debian { .. } => Command::new(DEBIAN_CARGO),
        };
        command.args(["build", "--release", "--target", TARGET]);
        if let Self::Debian { linker } = self {
            command
                .arg("-Zbuild-std=std,panic_abort")
                .env("RUSTC", DEBIAN_RUSTC)
                // What `-Zbuild-std` asks for; the packages are of a stable release.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            // They would bring in another Rust's programs or libraries.
            for outer in [
                "CARGO",
                "LD_LIBRARY_PATH",
                "RUSTC_WORKSPACE_WRAPPER",
                "RUSTC_WRAPPER",
                "RUSTDOC",
                "RUSTUP_TOOLCHAIN",
            ] {
                command.env_remove(outer);
            }
        }
        command
    }
}

/// Whether the Rust on the path has the target's standard library; without it cargo would fail with an
/// error about `core`.
fn has_target() -> std::io::Result<bool> {
    let asked = Command::new(tool("RUSTC", "rustc"))
        .args(["--print", "target-libdir", "--target", TARGET])
        .stdin(Stdio::null())
        .output()?;
    let folder = String::from_utf8_lossy(&asked.stdout);
    Ok(asked.status.success() && Path::new(folder.trim()).is_dir())
}

fn debian() -> Option<Toolchain> {
    let is_there = |file: &str| Path::new(file).is_file();
    if ![DEBIAN_RUSTC, DEBIAN_CARGO, DEBIAN_LIBRARY]
        .into_iter()
        .all(is_there)
    {
        return None;
    }
    let names = fs::read_dir(DEBIAN_BIN).ok()?.flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let linker = newest_linker(names)?;
    Some(Toolchain::Debian {
        linker: Path::new(DEBIAN_BIN).join(linker),
    })
}

/// `wasm-ld-19` before `wasm-ld-9`, before `wasm-ld`.
fn newest_linker(names: impl Iterator<Item = String>) -> Option<String> {
    names
        .filter_map(|name| {
            let version = match name.strip_prefix(LINKER)? {
                "" => 0,
                rest => rest.strip_prefix('-')?.parse::<u32>().ok()?,
            };
            Some((version, name))
        })
        .max()
        .map(|(_, name)| name)
}

/// As cargo does it: the environment may name another program.
fn tool(variable: &str, default: &str) -> OsString {
    env::var_os(variable).unwrap_or_else(|| default.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_linker_is_taken() {
        let newest = |names: &[&str]| newest_linker(names.iter().map(ToString::to_string));
        assert_eq!(
            newest(&["ld", "wasm-ld-9", "wasm-ld-19", "wasm-ld", "wasm-ld-x"]).as_deref(),
            Some("wasm-ld-19")
        );
        assert_eq!(newest(&["wasm-ld"]).as_deref(), Some("wasm-ld"));
        assert_eq!(newest(&["ld.lld", "wasm-ldx"]), None);
    }

    #[test]
    fn debians_cargo_builds_the_library_with_its_own_compiler() {
        let command = Toolchain::Debian {
            linker: "/usr/bin/wasm-ld-19".into(),
        }
        .cargo_build();
        assert_eq!(command.get_program(), DEBIAN_CARGO);
        assert!(
            command
                .get_args()
                .any(|arg| arg == "-Zbuild-std=std,panic_abort")
        );
        let set: Vec<_> = command.get_envs().collect();
        assert!(set.contains(&("RUSTC".as_ref(), Some(DEBIAN_RUSTC.as_ref()))));
        assert!(set.contains(&("RUSTUP_TOOLCHAIN".as_ref(), None)));
        let args: Vec<_> = Toolchain::Installed
            .cargo_build()
            .get_args()
            .map(OsString::from)
            .collect();
        assert_eq!(args, ["build", "--release", "--target", TARGET]);
    }
}
