//! The checkout as the rules see it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::rust_source;

/// Folders that hold what tools made or what a script fetched.
const SKIPPED: &[&str] = &[
    "target",
    "year",
    "__pycache__",
    ".git",
    "node_modules",
    "artifacts",
    "tidegate-data",
];

/// Every file of the checkout that is not made by a tool.
pub(super) struct Tree {
    pub(super) files: Vec<File>,
}

/// One file.
pub(super) struct File {
    /// Relative to the checkout, with `/` on every platform.
    pub(super) path: PathBuf,
    /// `None` for what is not UTF-8.
    pub(super) text: Option<String>,
    /// The text of a Rust file without comments and literals, line for line; empty for others.
    pub(super) code: String,
}

impl Tree {
    /// Reads the checkout at `root`.
    ///
    /// # Errors
    /// If a folder or file can't be read.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries =
                fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let kind = entry.file_type()?;
                if kind.is_dir() && !SKIPPED.contains(&&*name) {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    let path = entry.path();
                    let bytes =
                        fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
                    let relative = path.strip_prefix(root)?.to_path_buf();
                    files.push(File::new(relative, String::from_utf8(bytes).ok()));
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    /// A tree out of thin air.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self {
            files: files
                .iter()
                .map(|(path, text)| File::new(PathBuf::from(path), Some((*text).to_owned())))
                .collect(),
        }
    }

    /// The Rust files.
    pub(super) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.has_extension("rs"))
    }

    /// Whether there is a file or folder at `path`, relative to the checkout.
    pub(super) fn contains(&self, path: &Path) -> bool {
        self.files.iter().any(|file| file.path.starts_with(path))
    }

    /// The file at `path`, relative to the checkout.
    pub(super) fn get(&self, path: &Path) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl File {
    fn new(path: PathBuf, text: Option<String>) -> Self {
        let is_rust = path.extension().is_some_and(|found| found == "rs");
        let code = match &text {
            Some(text) if is_rust => rust_source::code_only(text),
            _ => String::new(),
        };
        Self { path, text, code }
    }

    /// Whether the name ends in `.extension`.
    pub(super) fn has_extension(&self, extension: &str) -> bool {
        self.path
            .extension()
            .is_some_and(|found| found == extension)
    }

    /// Its lines with their numbers from 1; none if it is not text.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .as_deref()
            .unwrap_or_default()
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// Lines of Rust code with comments and literals blanked, with their numbers from 1.
    pub(super) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }
}
