//! Words that come from guests, made fit for logs and terminals.

use std::fmt::Write;

use crate::limits::GUEST_TEXT_BYTES_MAX;

/// At most [`GUEST_TEXT_BYTES_MAX`] bytes of `text`, with control and formatting characters escaped:
/// a guest can neither forge a log line nor drive a terminal.
pub(crate) fn printable(text: &str) -> String {
    escaped(text, GUEST_TEXT_BYTES_MAX, &['"', '\''])
}

/// The same for words of the compiling child, which has escaped what it quotes: a backslash stays one.
pub(crate) fn relayed(text: &str) -> String {
    escaped(text, 2 * GUEST_TEXT_BYTES_MAX, &['"', '\'', '\\'])
}

fn escaped(text: &str, max: usize, kept: &[char]) -> String {
    let end = text.floor_char_boundary(max);
    let mut out = String::with_capacity(end);
    for c in text[..end].chars() {
        match c {
            _ if kept.contains(&c) => out.push(c),
            // The standard library escapes what is no printable character, bidi controls included.
            _ => write!(out, "{}", c.escape_debug()).expect("a String takes all that is written"),
        }
    }
    if end < text.len() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_length_is_bounded() {
        assert_eq!(
            printable("late 'by' \"60\" min\u{fc}te"),
            "late 'by' \"60\" minüte"
        );
        assert_eq!(
            printable("a\u{1b}[31mred\nTG0001 forged\r\u{202e}"),
            "a\\u{1b}[31mred\\nTG0001 forged\\r\\u{202e}"
        );
        let long = "ü".repeat(GUEST_TEXT_BYTES_MAX);
        let cut = printable(&long);
        assert_eq!(cut.chars().count(), GUEST_TEXT_BYTES_MAX / 2 + 1);
        assert!(cut.ends_with('…'));
        let quoted = printable("a\nb");
        assert_eq!(relayed(&quoted), quoted);
        assert_eq!(relayed("\u{1b}[2J"), "\\u{1b}[2J");
    }
}
