//! Finding a tool chain for `wasm32-unknown-unknown`.

use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::{env, fs};

use anyhow::{Context, Error, Result, bail};

use crate::place;
use crate::steps::run;

/// The target of plugins: no WASI, so that they import nothing.
pub(super) const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's tool chain for that target, and the linker and library source that it needs.
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];
/// By absolute path: another cargo is most often first on the PATH.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_LINKER: &str = "/usr/bin/wasm-ld-19";

/// What the caller asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wish {
    /// The first that can be had.
    #[default]
    Auto,
    /// The installed Rust's own target, added by rustup if it is missing.
    Rustup,
    /// Debian's packages.
    Debian,
}

impl FromStr for Wish {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "rustup" => Ok(Self::Rustup),
            "debian" => Ok(Self::Debian),
            _ => bail!("`{text}` is no tool chain; there are auto, rustup and debian"),
        }
    }
}

/// What there is on this machine.
#[derive(Clone, Copy, Debug, Default)]
struct Machine {
    ci: bool,
    /// The Rust that runs this has the target.
    has_target: bool,
    has_debian: bool,
    /// Root on Debian may install packages.
    can_install_debian: bool,
    has_rustup: bool,
}

/// What is to be done to have a tool chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    UseTarget,
    AddTarget,
    UseDebian,
    InstallDebian,
}

/// A tool chain that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Toolchain {
    /// The Rust that runs this, with the target's library installed.
    Installed,
    /// Debian's, which builds the library along with the plugin.
    Debian,
}

impl Toolchain {
    /// Finds one, or installs one where the machine's owner would expect it.
    ///
    /// # Errors
    /// With a sentence that says what to install, if there is none to be had.
    pub(super) fn get(wish: Wish) -> Result<Self> {
        match choose(wish, Machine::look())? {
            Choice::UseTarget => Ok(Self::Installed),
            Choice::UseDebian => Ok(Self::Debian),
            Choice::AddTarget => {
                run(Command::new("rustup").args(["target", "add", TARGET]))?;
                Ok(Self::Installed)
            }
            Choice::InstallDebian => {
                install_debian()?;
                Ok(Self::Debian)
            }
        }
    }

    /// A cargo that builds plugins with it, in release mode, for [`TARGET`].
    pub(super) fn cargo_build(self) -> Command {
        let mut command = match self {
            Self::Installed => place::cargo(["build"]),
            Self::Debian => Command::new(DEBIAN_CARGO),
        };
        forget_outer_cargo(&mut command, self);
        if self == Self::Debian {
            command
                .arg("build")
                .arg("-Zbuild-std=std,panic_abort")
                .env("RUSTC", DEBIAN_RUSTC)
                // What `-Zbuild-std` asks for; the packages are of a stable release.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER);
        }
        command.args(["--release", "--target", TARGET]);
        command
    }

    /// The compiler's version, as a part of what a plugin depends on.
    pub(super) fn version(self) -> Result<String> {
        let mut command = match self {
            Self::Installed => rustc(),
            Self::Debian => Command::new(DEBIAN_RUSTC),
        };
        forget_outer_cargo(&mut command, self);
        let output = command
            .arg("-vV")
            .output()
            .context("asking rustc for its version")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// CI takes Debian's way always: the same on every machine, and nothing from outside its archive.
fn choose(wish: Wish, machine: Machine) -> Result<Choice> {
    let wish = match wish {
        Wish::Auto if machine.ci => Wish::Debian,
        wish => wish,
    };
    let debian = match machine {
        Machine {
            has_debian: true, ..
        } => Some(Choice::UseDebian),
        Machine {
            can_install_debian: true,
            ..
        } => Some(Choice::InstallDebian),
        _ => None,
    };
    let installed = machine.has_target.then_some(Choice::UseTarget);
    let added = (machine.has_rustup && !machine.ci).then_some(Choice::AddTarget);
    let choice = match wish {
        Wish::Auto => installed.or(debian).or(added),
        Wish::Rustup => installed.or(added),
        Wish::Debian => debian,
    };
    match choice {
        Some(choice) => Ok(choice),
        None if wish == Wish::Debian => bail!(
            "Debian's tool chain for {TARGET} isn't installed; install it as root with `apt-get install {}`",
            DEBIAN_PACKAGES.join(" ")
        ),
        None => bail!(
            "there is no Rust for {TARGET}; install rustup from https://rustup.rs and run `rustup target add {TARGET}`"
        ),
    }
}

impl Machine {
    fn look() -> Self {
        Self {
            ci: place::is_ci(),
            has_target: has_target(),
            has_debian: has_debian(),
            can_install_debian: Path::new("/etc/debian_version").exists()
                && place::works(Command::new("apt-get").arg("--version"))
                && is_root(),
            has_rustup: place::works(Command::new("rustup").arg("--version")),
        }
    }
}

fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

fn has_target() -> bool {
    let output = rustc()
        .args(["--print", "target-libdir", "--target", TARGET])
        .output();
    let Ok(output) = output else { return false };
    let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

fn has_debian() -> bool {
    DEBIAN_PACKAGES.iter().all(|package| {
        Command::new("dpkg-query")
            .args(["--show", "--showformat", "${db:Status-Abbrev}", package])
            .output()
            .is_ok_and(|output| output.stdout.starts_with(b"ii"))
    })
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n")
}

fn install_debian() -> Result<()> {
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    run(apt_get().arg("update"))?;
    // The packages replace Debian's own rustc and rustup; whoever has those must decide that.
    run(apt_get()
        .args(["install", "--yes", "--no-install-recommends", "--no-remove"])
        .args(DEBIAN_PACKAGES))
    .with_context(|| {
        format!(
            "Debian's tool chain for {TARGET} can't be installed; if its `rustc` or `rustup` package is in the way, remove that or run `rustup target add {TARGET}`"
        )
    })
}

/// Takes out of the environment what the cargo that runs this put in: it would make the inner one use
/// another compiler, flags meant for the host, or libraries of another tool chain. Settings of the
/// network and of cargo's home stay.
fn forget_outer_cargo(command: &mut Command, toolchain: Toolchain) {
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        if is_outer_cargos(name, toolchain) {
            command.env_remove(name);
        }
    }
}

fn is_outer_cargos(name: &str, toolchain: Toolchain) -> bool {
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_BUILD_JOBS",
    ];
    match name {
        "RUSTFLAGS" | "RUSTDOCFLAGS" | "LD_LIBRARY_PATH" => true,
        // The installed tool chain is the one that runs this.
        "RUSTC" | "RUSTDOC" | "RUSTUP_TOOLCHAIN" | "RUSTC_WRAPPER" | "RUSTC_WORKSPACE_WRAPPER" => {
            toolchain == Toolchain::Debian
        }
        _ if name.starts_with("CARGO") => !KEPT.iter().any(|kept| name.starts_with(kept)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: Machine = Machine {
        ci: false,
        has_target: true,
        has_debian: true,
        can_install_debian: true,
        has_rustup: true,
    };

    #[test]
    fn the_installed_target_comes_first_then_debian_then_rustup() {
        let choose = |machine| choose(Wish::Auto, machine).unwrap();
        assert_eq!(choose(EVERYTHING), Choice::UseTarget);
        let machine = Machine {
            has_target: false,
            ..EVERYTHING
        };
        assert_eq!(choose(machine), Choice::UseDebian);
        let machine = Machine {
            has_debian: false,
            ..machine
        };
        assert_eq!(choose(machine), Choice::InstallDebian);
        let machine = Machine {
            can_install_debian: false,
            ..machine
        };
        assert_eq!(choose(machine), Choice::AddTarget);
    }

    #[test]
    fn ci_takes_debians_way_or_none() {
        let ci = Machine {
            ci: true,
            ..EVERYTHING
        };
        assert_eq!(choose(Wish::Auto, ci).unwrap(), Choice::UseDebian);
        let nothing = Machine {
            has_debian: false,
            can_install_debian: false,
            ..ci
        };
        let error = choose(Wish::Auto, nothing).unwrap_err();
        assert!(error.to_string().contains("apt-get install rustc-web"));
    }

    #[test]
    fn wishes_are_kept_or_refused_with_what_to_install() {
        assert_eq!(choose(Wish::Debian, EVERYTHING).unwrap(), Choice::UseDebian);
        let bare = Machine::default();
        for wish in [Wish::Auto, Wish::Rustup] {
            let error = choose(wish, bare).unwrap_err();
            assert!(error.to_string().contains("rustup target add"));
        }
        let debian = Machine {
            has_target: false,
            has_rustup: false,
            ..EVERYTHING
        };
        assert!(choose(Wish::Rustup, debian).is_err());
    }

    #[test]
    fn the_outer_cargos_words_are_forgotten_and_the_users_kept() {
        for name in [
            "CARGO",
            "CARGO_PKG_NAME",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTFLAGS",
            "CARGO_TARGET_DIR",
        ] {
            assert!(is_outer_cargos(name, Toolchain::Installed), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "CARGO_NET_OFFLINE",
            "HOME",
            "PATH",
        ] {
            assert!(!is_outer_cargos(name, Toolchain::Debian), "{name}");
        }
        assert!(is_outer_cargos("RUSTUP_TOOLCHAIN", Toolchain::Debian));
        assert!(!is_outer_cargos("RUSTUP_TOOLCHAIN", Toolchain::Installed));
    }
}
