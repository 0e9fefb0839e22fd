//! The size and shape of Rust files: none over 900 lines, `lib.rs` a table of contents, `unsafe` only
//! where it is argued for.

use std::path::Path;

use super::Finding;
use super::files::{File, Tree};
use super::rust_source::has_word;

/// Lines of a Rust file.
const FILE_LINES_MAX: usize = 900;
/// Lines of a `lib.rs`: purpose, modules and exports need no more.
const LIB_LINES_MAX: usize = 120;
/// The crates whose code may say `unsafe`: memory maps, and loading compiled guests.
const UNSAFE_CRATES: &[&str] = &["store", "runtime"];
/// Guests are one function each; their `lib.rs` is that function.
const GUESTS: &str = "plugins";
const SDK: &str = "plugins/sdk";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        check_size(file, &mut findings);
        check_lib(file, &mut findings);
        check_unsafe(file, &mut findings);
    }
    findings
}

fn check_size(file: &File, findings: &mut Vec<Finding>) {
    let lines = file.lines().count();
    if lines > FILE_LINES_MAX {
        findings.push(Finding::new(
            &file.path,
            0,
            format!("has {lines} lines, at most {FILE_LINES_MAX}: split it by feature"),
        ));
    }
}

fn check_lib(file: &File, findings: &mut Vec<Finding>) {
    let is_guest = file.path.starts_with(GUESTS) && !file.path.starts_with(SDK);
    if !file.path.ends_with("src/lib.rs") || is_guest {
        return;
    }
    let lines = file.lines().count();
    if lines > LIB_LINES_MAX {
        findings.push(Finding::new(
            &file.path,
            0,
            format!("has {lines} lines, at most {LIB_LINES_MAX}: it is a table of contents"),
        ));
    }
    for (line, code) in file.code_lines() {
        if ["fn", "impl", "struct", "enum", "trait"]
            .iter()
            .any(|word| has_word(code, word))
        {
            findings.push(Finding::new(
                &file.path,
                line,
                "lib.rs holds purpose, modules and exports; move this into a module",
            ));
        }
    }
}

fn check_unsafe(file: &File, findings: &mut Vec<Finding>) {
    if UNSAFE_CRATES
        .iter()
        .any(|name| file.path.starts_with(Path::new(name)))
    {
        return;
    }
    for (line, code) in file.code_lines() {
        if has_word(code, "unsafe") {
            findings.push(Finding::new(
                &file.path,
                line,
                "`unsafe` belongs into store (memory maps) and runtime (compiled guests) only",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)]))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_long_file_is_found() {
        assert!(check_one("broker/src/a.rs", &"//\n".repeat(900)).is_empty());
        let found = check_one("broker/src/a.rs", &"//\n".repeat(901));
        assert_eq!(
            found,
            ["broker/src/a.rs: has 901 lines, at most 900: split it by feature"]
        );
    }

    #[test]
    fn a_lib_with_logic_is_found_but_not_a_guest() {
        let logic = "//! Purpose: fn\nmod a;\npub use a::b;\nfn c() {}\n";
        assert_eq!(check_one("store/src/lib.rs", logic).len(), 1);
        assert_eq!(check_one("plugins/sdk/src/lib.rs", logic).len(), 1);
        assert!(check_one("plugins/header-match/src/lib.rs", logic).is_empty());
        assert!(check_one("store/src/lib.rs", "//! Purpose.\nmod a;\npub use a::b;\n").is_empty());
        assert_eq!(check_one("store/src/lib.rs", &"//!\n".repeat(121)).len(), 1);
    }

    #[test]
    fn unsafe_outside_its_two_crates_is_found() {
        let text = "fn f() { unsafe { g() } }\n";
        assert_eq!(check_one("server/src/a.rs", text).len(), 1);
        assert!(check_one("store/src/mmap.rs", text).is_empty());
        assert!(
            check_one(
                "server/src/a.rs",
                "// unsafe is a word\n#![deny(unsafe_code)]\n"
            )
            .is_empty()
        );
    }
}
