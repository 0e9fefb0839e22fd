//! Links between documents lead somewhere: files, headings, lines; and pages that code names exist.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::Finding;
use super::files::{File, Tree};
use super::rust_source::has_word;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        if file.has_extension("md") {
            for link in links(file.text.as_deref().unwrap_or_default()) {
                let followed = follow(tree, &file.path, &link.target)
                    .and_then(|()| check_name(tree, &file.path, &link));
                if let Err(why) = followed {
                    findings.push(Finding::new(
                        &file.path,
                        link.line,
                        format!("dead link `{}`: {why}", link.target),
                    ));
                }
            }
        } else if file.has_extension("rs") {
            check_named_pages(tree, file, &mut findings);
        }
    }
    findings
}

/// A link of a Markdown text.
struct Link {
    line: usize,
    text: String,
    target: String,
}

/// Every relative link of a Markdown text outside code.
fn links(text: &str) -> Vec<Link> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let prose = without_brackets_in_code(line);
        for (at, _) in prose.match_indices("](") {
            let rest = &prose[at + 2..];
            let Some(end) = rest.find(')') else { continue };
            let target = rest[..end].split_whitespace().next().unwrap_or_default();
            let is_remote = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !is_remote {
                let text = prose[..at].rsplit('[').next().unwrap_or_default();
                found.push(Link {
                    line: index + 1,
                    text: text.to_owned(),
                    target: target.to_owned(),
                });
            }
        }
    }
    found
}

/// The line, with brackets between backticks blanked: they make no link there.
fn without_brackets_in_code(line: &str) -> String {
    let mut in_code = false;
    line.chars()
        .map(|c| {
            in_code ^= c == '`';
            if in_code && "[]()".contains(c) {
                ' '
            } else {
                c
            }
        })
        .collect()
}

/// A link that names something in code (`` [`Owner::run`](…) ``) leads to a file that has it.
fn check_name(tree: &Tree, from: &Path, link: &Link) -> Result<(), String> {
    let name = link
        .text
        .strip_prefix('`')
        .and_then(|text| text.strip_suffix('`'));
    let path = link.target.split('#').next().unwrap_or_default();
    let (Some(name), Some(file)) = (name, resolve(from, path)) else {
        return Ok(());
    };
    let name = name.rsplit("::").next().unwrap_or_default().trim();
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !is_name || !path.ends_with(".rs") {
        return Ok(());
    }
    match tree.get(&file) {
        Some(found) if !has_word(&found.code, name) => {
            Err(format!("{} has no `{name}`", file.display()))
        }
        _ => Ok(()),
    }
}

fn follow(tree: &Tree, from: &Path, target: &str) -> Result<(), String> {
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let file = if path.is_empty() {
        from.to_path_buf()
    } else {
        resolve(from, path).ok_or("it leads out of the checkout")?
    };
    if !tree.contains(&file) {
        return Err(format!("there is no {}", file.display()));
    }
    let Some(anchor) = anchor else { return Ok(()) };
    let Some(text) = tree.get(&file).and_then(|file| file.text.as_deref()) else {
        return Err("only a text file has anchors".into());
    };
    if file.extension().is_some_and(|found| found == "md") {
        return if headings(text).contains(anchor) {
            Ok(())
        } else {
            Err(format!("{} has no heading `{anchor}`", file.display()))
        };
    }
    let lines = text.lines().count();
    match anchor
        .strip_prefix('L')
        .and_then(|line| line.parse::<usize>().ok())
    {
        Some(line) if (1..=lines).contains(&line) => Ok(()),
        _ => Err(format!("{} has {lines} lines", file.display())),
    }
}

/// `path` as seen from the file `from`, relative to the checkout; `None` if it leads out of it.
fn resolve(from: &Path, path: &str) -> Option<PathBuf> {
    let mut out = from.parent()?.to_path_buf();
    for part in Path::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !out.pop() {
                    return None;
                }
            }
            Component::Normal(name) => out.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(out)
}

/// The anchors that GitHub makes of a text's headings.
fn headings(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        let title = line.trim_start_matches('#');
        if fenced || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let slug: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let mut unique = slug.clone();
        let mut copies = 0;
        while !anchors.insert(unique) {
            copies += 1;
            unique = format!("{slug}-{copies}");
        }
    }
    anchors
}

/// Comments in code name pages by their path in `docs`; those pages exist.
fn check_named_pages(tree: &Tree, file: &File, findings: &mut Vec<Finding>) {
    for (line, text) in file.lines() {
        let comment = text.trim_start();
        if !comment.starts_with("//") {
            continue;
        }
        for word in comment.split(|c: char| c.is_whitespace() || "`()[]<>,;\"'".contains(c)) {
            let word = word.trim_end_matches(['.', ':']);
            let page = word.split('#').next().unwrap_or_default();
            if page.starts_with("docs/") && page.ends_with(".md") && !tree.contains(Path::new(page))
            {
                findings.push(Finding::new(
                    &file.path,
                    line,
                    format!("there is no page {page}"),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_all(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::of(files))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn good_links_pass() {
        let found = check_all(&[
            (
                "docs/a.md",
                "[b](b.md#two-words) [code](../model/src/lib.rs#L2) [folder](../model) [up](#here)\n\
                 # Here\n[out](https://example.com/x) `[no](link)` [`mod`](../model/src/lib.rs)\n```\n[no](link)\n```\n",
            ),
            ("docs/b.md", "# One\n## Two `words`!\n"),
            ("model/src/lib.rs", "//! See `docs/a.md`.\nmod a;\n"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn dead_links_are_found() {
        let found = check_all(&[
            (
                "docs/a.md",
                "[x](gone.md)\n[x](b.md#gone)\n[x](../../out)\n[x](../l.rs#L9)\n",
            ),
            ("docs/b.md", "# One\n"),
            ("l.rs", "// one line; see docs/none.md.\n"),
        ]);
        assert_eq!(
            found,
            [
                "docs/a.md:1: dead link `gone.md`: there is no docs/gone.md",
                "docs/a.md:2: dead link `b.md#gone`: docs/b.md has no heading `gone`",
                "docs/a.md:3: dead link `../../out`: it leads out of the checkout",
                "docs/a.md:4: dead link `../l.rs#L9`: l.rs has 1 lines",
                "l.rs:1: there is no page docs/none.md",
            ]
        );
    }

    #[test]
    fn a_link_that_names_code_leads_to_it() {
        let found = check_all(&[
            (
                "a.md",
                "[`Owner::run`](o.rs) [`stop`](o.rs) [`src/o`](o.rs) and [`gone()`](o.rs)\n",
            ),
            ("o.rs", "impl Owner { fn run() {} } // stop\n"),
        ]);
        assert_eq!(
            found,
            [
                "a.md:1: dead link `o.rs`: o.rs has no `stop`",
                "a.md:1: dead link `o.rs`: o.rs has no `gone`",
            ]
        );
    }

    #[test]
    fn repeated_headings_are_numbered() {
        let found = headings("# Same\n# Same\n```\n# not one\n```\n");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["same", "same-1"]);
    }
}
