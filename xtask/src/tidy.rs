//! The house rules that no compiler checks. Each rule is a file of its own, with its tests.

mod arrows;
mod files;
mod links;
mod rust_source;
mod shape;
mod tests_rules;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{no_arguments, place};

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Relative to the checkout.
    path: PathBuf,
    /// From 1; 0 for the file as a whole.
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &Path, line: usize, what: impl Into<String>) -> Self {
        Self {
            path: path.to_path_buf(),
            line,
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.path.display(), self.what)
        } else {
            write!(f, "{}:{}: {}", self.path.display(), self.line, self.what)
        }
    }
}

/// `cargo xtask tidy`: checks every rule and prints all findings.
pub(crate) fn run(args: &[String]) -> Result<()> {
    no_arguments("tidy", args)?;
    let root = place::root();
    let mut findings = arrows::check(&root)?;
    let tree = files::Tree::read(&root)?;
    findings.extend(shape::check(&tree));
    findings.extend(text::check(&tree));
    findings.extend(tests_rules::check(&tree));
    findings.extend(links::check(&tree));
    findings.sort();
    findings.dedup();
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy found {} thing(s) to put right", findings.len());
    }
    eprintln!("tidy: {} files are in order", tree.files.len());
    Ok(())
}
