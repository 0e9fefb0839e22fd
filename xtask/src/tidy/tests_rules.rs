//! Tests don't sleep to wait, and none is switched off.

use super::Finding;
use super::files::{File, Tree};

/// What a comment on the line, or the line before, begins with where a sleep is not a wait.
const PACES: &str = "// paces:";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        check_sleeps(file, &mut findings);
        for (line, code) in file.code_lines() {
            if code.contains("#[ignore") || code.contains(", ignore)]") {
                findings.push(Finding::new(
                    &file.path,
                    line,
                    "an ignored test: make it run, or remove it",
                ));
            }
        }
    }
    findings
}

fn check_sleeps(file: &File, findings: &mut Vec<Finding>) {
    let whole_file = file.path.starts_with("sandbox-tests")
        || file
            .path
            .components()
            .any(|part| part.as_os_str() == "tests")
        || file.path.ends_with("tests.rs");
    let mut in_tests = whole_file;
    let mut paced = false;
    for ((line, code), (_, text)) in file.code_lines().zip(file.lines()) {
        // Test modules stand at the end of a file.
        in_tests |= code.contains("#[cfg(test)]");
        let here = text.contains(PACES);
        if in_tests && sleeps(code) && !here && !paced {
            findings.push(Finding::new(
                &file.path,
                line,
                format!("a test sleeps: poll the condition with a deadline, or say `{PACES} why`"),
            ));
        }
        paced = here;
    }
}

/// Whether a line calls a function `sleep`. A method of that name is a test's own virtual clock.
fn sleeps(code: &str) -> bool {
    code.match_indices("sleep(").any(|(at, _)| {
        let before = &code[..at];
        !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.'))
            && !before.ends_with("fn ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&Tree::of(&[(path, text)]))
            .iter()
            .map(|f| f.line)
            .collect()
    }

    #[test]
    fn a_sleep_in_a_test_is_found_unless_it_says_why() {
        let text =
            "fn f() {\n    std::thread::sleep(d);\n    // paces: the poll loop\n    sleep(d);\n}\n";
        assert_eq!(lines("sandbox-tests/tests/all/main.rs", text), [2]);
        assert_eq!(lines("store/src/ring/tests.rs", text), [2]);
        assert!(lines("store/src/ring.rs", text).is_empty());
    }

    #[test]
    fn a_virtual_clock_may_sleep() {
        let text = "fn sleep(d: Duration) {}\nfn f() { pair.sleep(d); oversleep(d); }\n";
        assert!(lines("store/src/ring/tests.rs", text).is_empty());
    }

    #[test]
    fn a_test_module_counts_as_a_test() {
        let text = "fn f() { sleep(d); }\n#[cfg(test)]\nmod tests {\n    fn g() { sleep(d); }\n}\n";
        assert_eq!(lines("client/src/a.rs", text), [4]);
    }

    #[test]
    fn an_ignored_test_is_found() {
        assert_eq!(
            lines("a/src/b.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n"),
            [2]
        );
        assert!(lines("a/src/b.rs", "// #[ignore]\n").is_empty());
    }
}
