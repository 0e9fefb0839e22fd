//! What must not be committed in any text: reminders, paths of one machine; and no compiled guests.

use super::Finding;
use super::files::{File, Tree};
use super::rust_source::has_word;

/// This file names what it looks for.
const SELF: &str = "xtask/src/tidy/text.rs";
const REMINDERS: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];
const REMINDER_MACROS: &[&str] = &["dbg!", "todo!", "unimplemented!"];
const MACHINE_PATHS: &[&str] = &["/root/", "/home/", "/work/"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        if file.has_extension("wasm") {
            findings.push(Finding::new(
                &file.path,
                0,
                "a compiled guest; `cargo xtask guests` builds it, so it is not committed",
            ));
        }
        if file.path.ends_with(SELF) || file.path.ends_with("Cargo.lock") {
            continue;
        }
        check_reminders(file, &mut findings);
        check_machine_paths(file, &mut findings);
    }
    findings
}

fn check_reminders(file: &File, findings: &mut Vec<Finding>) {
    for (line, text) in file.lines() {
        if let Some(word) = REMINDERS.iter().find(|word| has_word(text, word)) {
            findings.push(Finding::new(
                &file.path,
                line,
                format!("a leftover `{word}`: do it, or open an issue"),
            ));
        }
    }
    for (line, code) in file.code_lines() {
        if let Some(name) = REMINDER_MACROS.iter().find(|name| {
            let word = name.trim_end_matches('!');
            has_word(code, word) && code.contains(*name)
        }) {
            findings.push(Finding::new(
                &file.path,
                line,
                format!("a leftover `{name}`"),
            ));
        }
    }
}

fn check_machine_paths(file: &File, findings: &mut Vec<Finding>) {
    for (line, text) in file.lines() {
        for prefix in MACHINE_PATHS {
            let is_absolute = |at: usize| {
                let before = text[..at].chars().next_back();
                !before.is_some_and(|c| {
                    c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '*' | '}')
                })
            };
            if text.match_indices(prefix).any(|(at, _)| is_absolute(at)) {
                findings.push(Finding::new(
                    &file.path,
                    line,
                    format!("a path of one machine (`{prefix}…`)"),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn reminders_are_found_in_any_text() {
        assert_eq!(count("docs/a.md", "one\nTODO: two\n"), 1);
        assert_eq!(count("a.sh", "# FIXME\n"), 1);
        assert_eq!(count("a.sh", "mktemp XXXXXX; MASTODON\n"), 0);
    }

    #[test]
    fn reminder_macros_are_found_in_code_only() {
        assert_eq!(count("a/src/b.rs", "fn f() { todo!() }\n"), 1);
        assert_eq!(count("a/src/b.rs", "fn f() { dbg!(1); }\n// dbg!\n"), 1);
        assert_eq!(
            count("a/src/b.rs", "// no todo! here\nlet s = \"dbg!\";\n"),
            0
        );
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        assert_eq!(count("a.md", "see /home/ann/notes\n"), 1);
        assert_eq!(count("a.toml", "path = \"/root/x\"\n"), 1);
        assert_eq!(count("a.md", "see src/work/a.rs and $HOME/x\n"), 0);
    }

    #[test]
    fn compiled_guests_are_found() {
        assert_eq!(count("plugins/a.wasm", ""), 1);
        assert_eq!(count("plugins/a.wat", ""), 0);
    }
}
