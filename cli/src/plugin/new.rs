//! `tidegate plugin new`: the crate of a filter, with the SDK beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tidegate_model::code;

use super::sdk;
use crate::app::App;
use crate::failure::{Failure, Result};

/// Bytes of a crate's name: what a file system takes as a file's, with room for endings.
const NAME_BYTES_MAX: usize = 64;
/// What the crate that is copied is called.
const STARTER: &str = "starter";
/// Where it finds the SDK in the repository, and where a new crate finds it.
const SDK_PATHS: (&str, &str) = ("\"../sdk\"", "\"vendor/plugins/sdk\"");
const LOCK: &str = include_str!("../../../plugins/starter/Cargo.lock");

/// Names that cargo or rustc refuse for a library, which a crate `NAME` would have.
const RESERVED: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plugin's name: a to z, 0 to 9 and hyphens
    name: String,
    /// Where the crate goes; must not exist [default: NAME in the current folder]
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

pub(super) fn run(app: &mut App, args: &Args) -> Result<()> {
    check_name(&args.name)?;
    let folder = args.to.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    if fs::symlink_metadata(&folder).is_ok() {
        return Err(
            Failure::new(code::FILE, format!("{} exists already", folder.display()))
                .hint("choose another name, or another place: --to FOLDER"),
        );
    }
    write_whole(&folder, &files(&args.name))?;
    let at = folder.display();
    let next = format!("cd {at} && cargo test && tidegate plugin build");
    let fields = [
        ("crate", at.to_string()),
        ("sdk", format!("{} in {at}/vendor", sdk::VERSION)),
        ("filter", format!("{at}/src/lib.rs")),
        ("next", next.clone()),
    ];
    let value = json!({
        "kind": "crate",
        "name": args.name,
        "folder": at.to_string(),
        "sdk": sdk::VERSION,
        "next": next,
    });
    app.out.one(&args.name, &fields, &value)
}

fn check_name(name: &str) -> Result<()> {
    let refused = |why: &str| {
        Err(
            Failure::usage(format!("{name:?} can't be a plugin crate's name: {why}"))
                .hint("begin with a letter and use a to z, 0 to 9 and hyphens, as in large-orders"),
        )
    };
    if name.len() > NAME_BYTES_MAX {
        return refused(&format!(
            "it has {} bytes, at most {NAME_BYTES_MAX}",
            name.len()
        ));
    }
    let is_word = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) || !name.split('-').all(is_word)
    {
        return refused("it is no lower-case word or words with hyphens between them");
    }
    if RESERVED.contains(&name) {
        return refused("Rust keeps it for itself");
    }
    if packages(LOCK).any(|package| name_of(package) == name && name != STARTER) {
        return refused("a crate that it depends on has that name");
    }
    Ok(())
}

/// Every file of the new crate, by its path in it.
fn files(name: &str) -> BTreeMap<String, String> {
    let own = [
        (
            "Cargo.toml",
            include_str!("../../../plugins/starter/Cargo.toml")
                .replace(&quoted(STARTER), &quoted(name))
                .replace(SDK_PATHS.0, SDK_PATHS.1),
        ),
        ("Cargo.lock", lock(name)),
        (
            "src/lib.rs",
            include_str!("../../../plugins/starter/src/lib.rs").to_owned(),
        ),
        (
            "README.md",
            include_str!("../../../plugins/starter/README.md").replace(STARTER, name),
        ),
        (
            "samples.jsonl",
            include_str!("../../../plugins/starter/samples.jsonl").to_owned(),
        ),
        (
            ".gitignore",
            include_str!("../../../plugins/starter/.gitignore").to_owned(),
        ),
    ];
    let mut files: BTreeMap<String, String> = own
        .into_iter()
        .map(|(path, text)| (path.to_owned(), text))
        .collect();
    for (path, text) in sdk::files() {
        files.insert(format!("vendor/{path}"), text.to_owned());
    }
    files
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// The versions with which this program's own plugins are built, in cargo's order, so that cargo has
/// nothing to change in it.
fn lock(name: &str) -> String {
    let head = LOCK.split("[[package]]").next().unwrap_or_default();
    let mut list: Vec<String> = packages(LOCK)
        .map(|package| package.replace(&quoted(STARTER), &quoted(name)))
        .collect();
    // Stable: two versions of one crate stay as they were.
    list.sort_by(|a, b| name_of(a).cmp(name_of(b)));
    format!("{head}{}\n", list.join("\n\n"))
}

fn packages(lock: &str) -> impl Iterator<Item = &str> {
    lock.trim_end()
        .split("\n\n")
        .filter(|part| part.starts_with("[[package]]"))
}

fn name_of(package: &str) -> &str {
    package
        .lines()
        .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .unwrap_or_default()
}

/// Writes a folder under another name first: it appears as a whole or not at all.
fn write_whole(folder: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(|error| Failure::file("make the folder", parent, &error))?;
    let unfinished = parent.join(format!(".tidegate-plugin-new-{}", std::process::id()));
    let written = write_all(&unfinished, files).and_then(|()| {
        fs::rename(&unfinished, folder).map_err(|error| Failure::file("write", folder, &error))
    });
    if written.is_err() {
        // What is left has a name of its own and hinders nobody; the first error is the one to show.
        let _left = fs::remove_dir_all(&unfinished);
    }
    written
}

fn write_all(folder: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    fs::create_dir(folder).map_err(|error| Failure::file("make the folder", folder, &error))?;
    for (path, text) in files {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent)
            .map_err(|error| Failure::file("make the folder", parent, &error))?;
        fs::write(&path, text).map_err(|error| Failure::file("write", &path, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_or_refused() {
        for good in ["a", "large-orders", "late2", STARTER, &"a".repeat(64)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "Large",
            "large_orders",
            "2late",
            "-a",
            "a-",
            "a--b",
            "../a",
            "a/b",
            ".",
            "a.b",
            "fn",
            "test",
            "serde",
            "tidegate-model",
            "ü",
            "a\n",
            &"a".repeat(65),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_lock_file_keeps_cargos_order_under_any_name() {
        assert_eq!(lock(STARTER), LOCK);
        for name in ["aa", "late-orders", "zz"] {
            let lock = lock(name);
            let names: Vec<_> = packages(&lock).map(name_of).collect();
            assert!(names.is_sorted(), "{names:?}");
            assert!(names.contains(&name) && !lock.contains(STARTER));
            assert_eq!(lock.len() - name.len(), LOCK.len() - STARTER.len());
        }
    }

    #[test]
    fn nothing_of_the_starters_name_or_place_is_left() {
        for (path, text) in files("late-orders") {
            assert!(!text.contains(STARTER), "{path}");
            let inherits = path.ends_with("Cargo.toml") && text.contains("workspace = true");
            assert!(!inherits, "{path}");
        }
    }
}
