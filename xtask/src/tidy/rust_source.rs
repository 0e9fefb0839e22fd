//! Telling code from comments and literals, well enough for searching words in code.

/// `source` with the contents of comments, strings and character literals blanked, line for line.
pub(super) fn code_only(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut after_word = false;
    while let Some(first) = rest.chars().next() {
        let taken = if after_word { None } else { raw_string(rest) }
            .or_else(|| comment(rest))
            .or_else(|| string(rest))
            .or_else(|| character(rest));
        let len = match taken {
            Some(len) => {
                blank(&mut out, &rest[..len]);
                after_word = false;
                len
            }
            None => {
                out.push(first);
                after_word = first.is_alphanumeric() || first == '_';
                first.len_utf8()
            }
        };
        rest = &rest[len..];
    }
    out
}

fn blank(out: &mut String, text: &str) {
    out.extend(text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
}

fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(rest.len())
}

fn raw_string(rest: &str) -> Option<usize> {
    let after_prefix = rest
        .strip_prefix("br")
        .or_else(|| rest.strip_prefix("cr"))
        .or_else(|| rest.strip_prefix('r'))?;
    let hashes = after_prefix.len() - after_prefix.trim_start_matches('#').len();
    let content = after_prefix[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let start = rest.len() - content.len();
    Some(
        content
            .find(&close)
            .map_or(rest.len(), |at| start + at + close.len()),
    )
}

fn string(rest: &str) -> Option<usize> {
    rest.starts_with('"').then(|| closing(rest, '"'))
}

fn character(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    if first == '\\' {
        return Some(closing(rest, '\''));
    }
    // A lifetime has no closing quote right after its first character.
    inner[first.len_utf8()..]
        .starts_with('\'')
        .then(|| 2 + first.len_utf8())
}

/// Bytes up to and with the unescaped `quote` that closes what `rest` opens.
fn closing(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    rest.len()
}

/// Whether `word` stands in `line` as a word of its own.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_line_for_line() {
        let source = "let a = \"x // \\\" y\"; // sleep\n/* one /* two */ three */ b('\\'', 'z', '\"');\nfn f<'a>(x: &'a str) {}\n";
        let code = code_only(source);
        assert_eq!(code.lines().count(), source.lines().count());
        for gone in ["x", "sleep", "one", "three", "z"] {
            assert!(!has_word(code.lines().next().unwrap(), gone), "{gone}");
        }
        assert!(code.contains("let a ="));
        assert!(code.contains("fn f<'a>(x: &'a str) {}"));
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes() {
        let code = code_only("let a = r##\"say \"# unsafe\"##; keep(br\"x\", r\"y\"); for_r\"z\"");
        assert!(!has_word(&code, "unsafe"));
        assert!(has_word(&code, "keep"));
        assert!(has_word(&code, "for_r"));
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("x = unsafe {", "unsafe"));
        assert!(!has_word("unsafe_code", "unsafe"));
        assert!(!has_word("not_unsafe", "unsafe"));
    }
}
