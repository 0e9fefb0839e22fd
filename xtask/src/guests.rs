//! `cargo xtask guests`: builds the plugins of this repository, with whatever tool chain for
//! `wasm32-unknown-unknown` there is or can be had.

mod build;
mod toolchain;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::place;
use toolchain::Wish;

/// Builds every plugin into `guests/NAME.wasm` in the target folder.
///
/// # Errors
/// If there is no tool chain (the message says what to install), or a plugin doesn't build.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let out = options
        .out
        .unwrap_or_else(|| place::target().join("guests"));
    build::all(options.wish, &out)
}

#[derive(Debug, Default, PartialEq)]
struct Options {
    wish: Wish,
    out: Option<PathBuf>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter().map(String::as_str);
        while let Some(arg) = args.next() {
            match (arg, args.next()) {
                ("--toolchain", Some(wish)) => options.wish = wish.parse()?,
                ("--out", Some(dir)) => options.out = Some(dir.into()),
                ("--toolchain" | "--out", None) => bail!("`{arg}` needs a value"),
                _ => bail!(
                    "unknown argument `{arg}`; `cargo xtask guests` takes `--toolchain auto|rustup|debian` and `--out DIR`"
                ),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        let args: Vec<_> = args.iter().map(ToString::to_string).collect();
        Options::parse(&args)
    }

    #[test]
    fn arguments_are_read_or_refused() {
        assert_eq!(parse(&[]).unwrap(), Options::default());
        let options = parse(&["--out", "x", "--toolchain", "debian"]).unwrap();
        assert_eq!(options.wish, Wish::Debian);
        assert_eq!(options.out, Some("x".into()));
        for bad in [&["--out"][..], &["--toolchain", "brew"], &["x", "y"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
