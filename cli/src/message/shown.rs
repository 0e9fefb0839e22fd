//! Stored messages as tables, documents and lines.

use serde::Serialize;
use serde_json::value::RawValue;
use tidegate_client::Received;
use tidegate_model::{TopicRef, Value};

use crate::app::App;
use crate::failure::Result;
use crate::line::{self, Place};
use crate::output::{API_VERSION, Column, Item};
use crate::units;

/// Characters of a key, tag or property that a table shows.
const CELL_CHARS_MAX: usize = 40;

const COLUMNS: &[Column] = &[
    Column::text("id"),
    Column::text("stored"),
    Column::number("queue"),
    Column::number("offset"),
    Column::text("keys"),
    Column::text("tag"),
    Column::number("body"),
    Column::text("group").wide(),
    Column::text("properties").wide(),
];

/// Messages on their way to standard output.
pub(super) struct List<'a> {
    topic: &'a TopicRef,
    count: u64,
    items: Vec<Item>,
    /// A message as a line of JSON, with its line feed.
    lines: Vec<String>,
}

/// What `-o json` prints. The items keep the notation that they have as lines.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<&'a str>,
}

impl<'a> List<'a> {
    pub(super) fn new(topic: &'a TopicRef) -> Self {
        Self {
            topic,
            count: 0,
            items: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Messages so far, printed or not.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn add(&mut self, messages: &[Received]) {
        for received in messages {
            self.count += 1;
            self.items.push(item(received));
            self.lines.push(line_of(self.topic, received));
        }
    }

    /// Prints what was added since the last time, for formats of which each line stands alone.
    pub(super) fn print(&mut self, app: &mut App) -> Result<()> {
        if app.out.is_json() {
            app.out.data(self.lines.concat().as_bytes())?;
        } else {
            app.out.list("messages", COLUMNS, &self.items)?;
        }
        self.items.clear();
        self.lines.clear();
        Ok(())
    }

    /// Prints all that was added as one table or document.
    pub(super) fn finish(&self, app: &mut App, page: Option<&str>) -> Result<()> {
        if !app.out.is_json() {
            return app.out.list("messages", COLUMNS, &self.items);
        }
        let items: serde_json::Result<Vec<&RawValue>> = self
            .lines
            .iter()
            .map(|line| serde_json::from_str(line))
            .collect();
        let document = Document {
            api_version: API_VERSION,
            kind: "messages",
            items: items.expect("a line is JSON"),
            page,
        };
        let mut text = serde_json::to_string_pretty(&document).expect("a document has a text");
        text.push('\n');
        app.out.data(text.as_bytes())
    }
}

fn line_of(topic: &TopicRef, received: &Received) -> String {
    let mut bytes = Vec::new();
    let topic = topic.topic.as_str();
    line::write(&mut bytes, topic, &Place::of(received), &received.message);
    String::from_utf8(bytes).expect("JSON is text")
}

fn item(received: &Received) -> Item {
    let message = &received.message;
    let keys: Vec<String> = message.keys.iter().map(|key| short(&text(key))).collect();
    let properties: Vec<String> = message
        .properties
        .iter()
        .map(|(name, value)| short(&format!("{name}={}", value_text(value))))
        .collect();
    let optional = |text: &Option<String>| text.as_deref().map(short).unwrap_or_default();
    Item {
        name: received.message_id.to_string(),
        cells: vec![
            received.message_id.to_string(),
            units::show_instant(received.append_time),
            received.queue_index.to_string(),
            received.offset.to_string(),
            keys.join(" "),
            optional(&message.tag),
            size(message.body.as_deref()),
            optional(&message.group),
            properties.join(" "),
        ],
        json: serde_json::Value::Null,
    }
}

/// One message with all it has.
pub(super) fn one(app: &mut App, topic: &TopicRef, received: &Received) -> Result<()> {
    let line = line_of(topic, received);
    if app.out.is_json() {
        // The line as it is, behind what every document begins with.
        let fields = line.strip_prefix('{').expect("a line is an object");
        let head = format!(r#"{{"apiVersion":"{API_VERSION}","kind":"message","#);
        return app.out.data(format!("{head}{fields}").as_bytes());
    }
    let message = &received.message;
    let keys: Vec<String> = message.keys.iter().map(|key| text(key)).collect();
    let properties: Vec<String> = message
        .properties
        .iter()
        .map(|(name, value)| format!("{name}={}", value_text(value)))
        .collect();
    let id = received.message_id.to_string();
    let mut fields = vec![
        ("id", id.clone()),
        ("topic", topic.to_string()),
        ("queue", received.queue_index.to_string()),
        ("offset", received.offset.to_string()),
        ("stored", units::show_instant(received.append_time)),
    ];
    if message.create_time.0 != 0 {
        fields.push(("created", units::show_instant(message.create_time)));
    }
    fields.push(("keys", keys.join("\n")));
    let optional = [("tag", &message.tag), ("group", &message.group)];
    for (title, value) in optional {
        if let Some(value) = value {
            fields.push((title, text(value.as_bytes())));
        }
    }
    if !properties.is_empty() {
        fields.push(("properties", properties.join("\n")));
    }
    fields.push(("bytes", size(message.body.as_deref())));
    if let Some(body) = &message.body {
        fields.push(("body", text(body)));
    }
    app.out.one(&id, &fields, &serde_json::Value::Null)
}

/// Text as it is, but for what would move a terminal's cursor; other bytes in base64.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text
            .chars()
            .map(|c| match c {
                '\n' => "\n".to_owned(),
                c if c.is_control() => c.escape_default().to_string(),
                c => c.to_string(),
            })
            .collect(),
        Err(_) => format!("base64:{}", line::base64_of(bytes)),
    }
}

/// One line of limited length.
fn short(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(CELL_CHARS_MAX + 1)
        .collect();
    match line.char_indices().nth(CELL_CHARS_MAX) {
        Some(_) => line.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect(),
        None => line,
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::I64(integer) => integer.to_string(),
        Value::F64(double) => double.to_string(),
        Value::String(string) => text(string.as_bytes()),
        Value::Bytes(bytes) => format!("base64:{}", line::base64_of(bytes)),
    }
}

fn size(body: Option<&[u8]>) -> String {
    match body {
        None => "null".to_owned(),
        Some(body) => body.len().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(text(b"a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\nc");
        assert_eq!(text(&[0xff, 0]), "base64:/wA=");
        assert_eq!(short("a\nb\tc"), "a b c");
    }

    #[test]
    fn long_cells_end_with_dots() {
        let long = "ü".repeat(CELL_CHARS_MAX + 1);
        assert_eq!(short(&long).chars().count(), CELL_CHARS_MAX);
        assert!(short(&long).ends_with('…'));
        let fits = "ü".repeat(CELL_CHARS_MAX);
        assert_eq!(short(&fits), fits);
    }
}
