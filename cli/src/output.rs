//! The only way to standard output and standard error.
//!
//! Data goes to standard output, everything else to standard error.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use clap::builder::styling::{AnsiColor, Style};
use serde_json::{Value, json};

use crate::failure::{Failure, Report, Result};
use crate::table;

/// The version of what `-o json` prints.
pub(crate) const API_VERSION: &str = "tidegate/v1";

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default();

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people: a table on a terminal, aligned text elsewhere
    #[default]
    Table,
    /// A table with every column
    Wide,
    /// One JSON document
    Json,
    /// One JSON document per line
    Jsonl,
    /// Names alone, one per line
    Name,
}

/// When colours are used; `NO_COLOR` counts as `never` unless `always` is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    pub(crate) fn choice(self) -> ColorChoice {
        match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::AlwaysAnsi,
            Self::Never => ColorChoice::Never,
        }
    }
}

/// Standard output and standard error.
pub(crate) struct Output {
    stdout: AutoStream<io::Stdout>,
    stderr: AutoStream<io::Stderr>,
    format: Format,
    quiet: bool,
}

/// A thing as every format prints it.
pub(crate) struct Item {
    pub(crate) name: String,
    /// One per column of its kind.
    pub(crate) cells: Vec<String>,
    pub(crate) json: Value,
}

/// A column of a table.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    /// Only in `-o wide`.
    pub(crate) wide: bool,
    /// Numbers stand right.
    pub(crate) right: bool,
}

impl Column {
    pub(crate) const fn text(title: &'static str) -> Self {
        Self {
            title,
            wide: false,
            right: false,
        }
    }

    pub(crate) const fn number(title: &'static str) -> Self {
        Self {
            title,
            wide: false,
            right: true,
        }
    }

    pub(crate) const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }
}

impl Output {
    pub(crate) fn new(format: Format, color: Color, quiet: bool) -> Self {
        let stream = |auto: ColorChoice| match color {
            Color::Auto => auto,
            _ => color.choice(),
        };
        Self {
            stdout: AutoStream::new(io::stdout(), stream(AutoStream::choice(&io::stdout()))),
            stderr: AutoStream::new(io::stderr(), stream(AutoStream::choice(&io::stderr()))),
            format,
            quiet,
        }
    }

    /// Whether results are read by a program.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.format, Format::Json | Format::Jsonl)
    }

    /// Whether each line of a list stands alone, so that it can be printed piece by piece.
    pub(crate) fn is_streamed(&self) -> bool {
        matches!(self.format, Format::Jsonl | Format::Name)
    }

    /// Whether every column is wanted.
    pub(crate) fn is_wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// Whether nothing but results and errors is wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A line of data.
    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.stdout, "{}", for_terminals(text)).map_err(Failure::from)
    }

    /// A line of the program's own, which may have colours.
    pub(crate) fn styled_line(&mut self, text: &str) -> Result<()> {
        writeln!(self.stdout, "{text}").map_err(Failure::from)
    }

    /// A line that is JSON.
    pub(crate) fn json_line(&mut self, json: &str) -> Result<()> {
        let json = json_for_terminals(Cow::Borrowed(json));
        writeln!(self.stdout, "{json}").map_err(Failure::from)
    }

    /// Data as it is, and on its way when this returns. Colour codes in it are data, not style.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let mut stdout = self.stdout.as_inner().lock();
        stdout.write_all(bytes)?;
        stdout.flush().map_err(Failure::from)
    }

    /// Something for people, on standard error. That it may get lost there stops no command.
    pub(crate) fn note(&mut self, text: &str) {
        if !self.quiet {
            let _unread = writeln!(self.stderr, "{}", for_terminals(text));
        }
    }

    /// Something that needs attention, whether quiet or not.
    pub(crate) fn warn(&mut self, text: &str) {
        let _unread = writeln!(self.stderr, "warning: {}", for_terminals(text));
    }

    /// Asks a question; the answer is read elsewhere.
    pub(crate) fn ask(&mut self, text: &str) {
        let _unread =
            write!(self.stderr, "{} ", for_terminals(text)).and_then(|()| self.stderr.flush());
    }

    /// An error: what, because, hint.
    pub(crate) fn report(&mut self, report: &Report) {
        let _unread = write_report(&mut self.stderr, report);
    }

    /// Things of one kind.
    pub(crate) fn list(&mut self, kind: &str, columns: &[Column], items: &[Item]) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide => {
                let wide = self.format == Format::Wide;
                let terminal = io::stdout().is_terminal();
                let text = table::render(columns, items, wide, terminal);
                write!(self.stdout, "{}", for_terminals(&text)).map_err(Failure::from)
            }
            Format::Json => {
                let items: Vec<&Value> = items.iter().map(|item| &item.json).collect();
                self.json(&json!({ "apiVersion": API_VERSION, "kind": kind, "items": items }))
            }
            Format::Jsonl => items
                .iter()
                .try_for_each(|item| self.json(&versioned(&item.json))),
            Format::Name => items.iter().try_for_each(|item| self.line(&item.name)),
        }
    }

    /// One thing, in full: `fields` are titles and values.
    pub(crate) fn one(
        &mut self,
        name: &str,
        fields: &[(&str, String)],
        value: &Value,
    ) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide => {
                let text = table::fields(fields);
                write!(self.stdout, "{}", for_terminals(&text)).map_err(Failure::from)
            }
            Format::Json | Format::Jsonl => self.json(&versioned(value)),
            Format::Name => self.line(name),
        }
    }

    /// Something was done: a sentence for people, the thing for programs.
    pub(crate) fn done(&mut self, name: &str, sentence: &str, value: &Value) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide => {
                if self.quiet {
                    return Ok(());
                }
                self.line(sentence)
            }
            Format::Json | Format::Jsonl => self.json(&versioned(value)),
            Format::Name => self.line(name),
        }
    }

    fn json(&mut self, value: &Value) -> Result<()> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(value),
            _ => serde_json::to_string(value),
        }
        .expect("a JSON value has a text");
        self.json_line(&text)
    }
}

/// Whether a terminal may take a part of the text for a command: a control character other than a line
/// feed or a tab, of C0, C1 or delete.
pub(crate) fn has_controls(text: &str) -> bool {
    text.chars().any(is_control)
}

fn is_control(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
}

/// Text that came from elsewhere, with its control characters escaped as Rust writes them.
pub(crate) fn for_terminals(text: &str) -> Cow<'_, str> {
    if !has_controls(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_control(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The same JSON with the control characters escaped that JSON lets stand in its strings: delete and
/// C1.
pub(crate) fn json_for_terminals(json: Cow<'_, str>) -> Cow<'_, str> {
    if !has_controls(&json) {
        return json;
    }
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_control(c) {
            write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes it");
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The value with `apiVersion` in front.
fn versioned(value: &Value) -> Value {
    let mut out = json!({ "apiVersion": API_VERSION });
    if let (Some(out), Some(fields)) = (out.as_object_mut(), value.as_object()) {
        out.extend(fields.clone());
    }
    out
}

fn write_report(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let code = report
        .code
        .map_or_else(String::new, |code| format!("[{code}]"));
    writeln!(
        out,
        "{ERROR}error{code}{ERROR:#}: {}",
        for_terminals(&report.what)
    )?;
    if let Some(because) = &report.because {
        writeln!(out, "  because {}", for_terminals(because))?;
    }
    if let Some(hint) = &report.hint {
        writeln!(out, "  {HINT}hint{HINT:#}: {}", for_terminals(hint))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::code;

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let Failure::Error(report) = Failure::new(code::FILE, "can't read week.jsonl")
            .because("there is no such file")
            .hint("ls")
        else {
            panic!("an error is an error");
        };
        let mut plain = anstream::StripStream::new(Vec::new());
        write_report(&mut plain, &report).unwrap();
        assert_eq!(
            String::from_utf8(plain.into_inner()).unwrap(),
            "error[TG0604]: can't read week.jsonl\n  because there is no such file\n  hint: ls\n"
        );
    }

    #[test]
    fn no_control_character_reaches_a_terminal() {
        assert_eq!(for_terminals("a\tb\nö"), "a\tb\nö");
        assert_eq!(
            for_terminals("\u{1b}[2J\u{9b}2J\u{7f}\r"),
            r"\u{1b}[2J\u{9b}2J\u{7f}\r"
        );
        let json = json!({ "a": "\u{9b}2J\u{7f}\u{1b}" });
        let text = json_for_terminals(Cow::Owned(json.to_string()));
        assert_eq!(text, r#"{"a":"\u009b2J\u007f\u001b"}"#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json);
    }

    #[test]
    fn json_begins_with_its_version() {
        let text = versioned(&json!({ "name": "flights" })).to_string();
        assert_eq!(text, r#"{"apiVersion":"tidegate/v1","name":"flights"}"#);
    }
}
