//! `tidegate help`: commands, and error codes.

use clap::Parser;
use clap::error::ErrorKind;
use serde_json::json;
use tidegate_model::Code;
use tidegate_model::code::{Entry, Remedy, TABLE};

use crate::app::{App, Cli};
use crate::failure::{Failure, Result};
use crate::output::{Column, Item};

/// Lists every code.
const ALL: &str = "codes";

/// Explain a command or an error code
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A command such as `topic create`, a code such as TG0102, or `codes` for all of them
    #[arg(value_name = "COMMAND|CODE")]
    words: Vec<String>,
}

pub(crate) fn run(app: &mut App, args: &Args) -> Result<()> {
    match args.words.as_slice() {
        [word] if word == ALL => {
            let items: Vec<Item> = TABLE.iter().map(item).collect();
            app.out.list("codes", COLUMNS, &items)
        }
        [word] if looks_like_code(word) => explain(app, word),
        words => of_command(app, words),
    }
}

/// The same as `COMMAND --help`.
fn of_command(app: &mut App, words: &[String]) -> Result<()> {
    let line = ["tidegate"]
        .into_iter()
        .chain(words.iter().map(String::as_str))
        .chain(["--help"]);
    match Cli::try_parse_from(line) {
        Err(help) if help.kind() == ErrorKind::DisplayHelp => app
            .out
            .styled_line(help.render().ansi().to_string().trim_end()),
        _ => Err(Failure::usage(format!(
            "{:?} is neither a command nor an error code",
            words.join(" ")
        ))
        .hint("tidegate help, or tidegate help codes")),
    }
}

const COLUMNS: &[Column] = &[
    Column::text("code"),
    Column::text("name"),
    Column::text("remedy"),
    Column::text("text").wide(),
];

fn looks_like_code(word: &str) -> bool {
    word.contains(|c: char| c.is_ascii_digit()) || TABLE.iter().any(|entry| entry.name == word)
}

fn explain(app: &mut App, word: &str) -> Result<()> {
    let by_name = TABLE.iter().find(|entry| entry.name == word);
    let entry = match (by_name, word.parse::<Code>()) {
        (Some(entry), _) => entry,
        (None, Err(error)) => {
            return Err(Failure::usage(format!("{word:?} is no error code"))
                .because(error.to_string())
                .hint("tidegate help codes"));
        }
        (None, Ok(code)) => code.entry().ok_or_else(|| unknown(code))?,
    };
    let fields = [
        ("code", entry.code.to_string()),
        ("name", entry.name.to_owned()),
        ("text", entry.text.to_owned()),
        ("remedy", remedy(entry.remedy).to_owned()),
    ];
    app.out.one(&entry.code.to_string(), &fields, &value(entry))
}

fn unknown(code: Code) -> Failure {
    let nearest = TABLE
        .iter()
        .min_by_key(|entry| entry.code.0.abs_diff(code.0))
        .expect("the table isn't empty");
    Failure::usage(format!("this version knows no error code {code}")).hint(format!(
        "the nearest is {} ({}); tidegate help codes lists all",
        nearest.code, nearest.name
    ))
}

fn remedy(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::Retry => "the same request may succeed later",
        Remedy::Change => "the request must change",
        Remedy::Access => "somebody must grant or renew access",
        Remedy::Missing => "the thing named isn't there",
        Remedy::Conflict => "it clashes with what is there",
        Remedy::Operator => "an operator must act on the server",
    }
}

fn item(entry: &Entry) -> Item {
    Item {
        name: entry.code.to_string(),
        cells: vec![
            entry.code.to_string(),
            entry.name.to_owned(),
            remedy(entry.remedy).to_owned(),
            entry.text.to_owned(),
        ],
        json: value(entry),
    }
}

fn value(entry: &Entry) -> serde_json::Value {
    json!({
        "kind": "code",
        "code": entry.code.to_string(),
        "name": entry.name,
        "text": entry.text,
        "remedy": remedy(entry.remedy),
    })
}
