//! A message as a line of JSON: what `publish` reads and `consume` writes.
//!
//! What `consume` wrote can be published again: the fields that only a stored message has are read
//! and passed over.

mod property;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_client::Received;
use tidegate_model::{Message, MessageId, Offset, Timestamp, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::{output, units};

/// Unit of a time that no calendar of ours has, as in `9223372036854775807 ms`.
const MS: &str = " ms";
const NS_PER_MS: i128 = 1_000_000;

/// A line as it is read. A field that is there twice, or unknown, is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    key: Option<String>,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    keys_base64: Vec<String>,
    tag: Option<String>,
    group: Option<String>,
    #[serde(default, deserialize_with = "property::read_all")]
    properties: Vec<(String, Value)>,
    #[serde(borrow, default, deserialize_with = "present")]
    body: Option<&'a RawValue>,
    body_base64: Option<String>,
    /// `null` is a message without one; a line without the field gets the present.
    #[serde(default, deserialize_with = "there")]
    create_time: Option<Option<String>>,
    #[serde(rename = "topic")]
    _topic: Option<serde::de::IgnoredAny>,
    #[serde(rename = "queue")]
    _queue: Option<serde::de::IgnoredAny>,
    #[serde(rename = "offset")]
    _offset: Option<serde::de::IgnoredAny>,
    #[serde(rename = "id")]
    _id: Option<serde::de::IgnoredAny>,
    #[serde(rename = "attempt")]
    _attempt: Option<serde::de::IgnoredAny>,
    #[serde(rename = "append_time")]
    _append_time: Option<serde::de::IgnoredAny>,
}

/// Reads a message; the error is a sentence for people.
pub(crate) fn parse(text: &str) -> Result<Message, String> {
    not_an_object(text)?;
    let line: Line<'_> = serde_json::from_str(text).map_err(|error| json_error(&error))?;
    if [
        line.key.is_some(),
        !line.keys.is_empty(),
        !line.keys_base64.is_empty(),
    ]
    .iter()
    .filter(|given| **given)
    .count()
        > 1
    {
        return Err("it has two of key, keys and keys_base64: write one".to_owned());
    }
    let mut keys: Vec<Vec<u8>> = line
        .key
        .into_iter()
        .chain(line.keys)
        .map(String::into_bytes)
        .collect();
    for key in line.keys_base64 {
        keys.push(decode("keys_base64", &key)?);
    }
    let body = match (line.body, line.body_base64) {
        (Some(_), Some(_)) => return Err("it has both body and body_base64: write one".to_owned()),
        (None, Some(text)) => Some(decode("body_base64", &text)?),
        (Some(raw), None) => body(raw)?,
        (None, None) => {
            return Err(
                r#"it has no body: write "body": null for a message without one"#.to_owned(),
            );
        }
    };
    let create_time = match line.create_time {
        None => units::now(),
        Some(None) => Timestamp(0),
        Some(Some(text)) => create_time(&text)?,
    };
    Ok(Message {
        body,
        keys,
        tag: line.tag,
        group: line.group,
        properties: line.properties,
        create_time,
        due_time: None,
        priority: 0,
    })
}

/// Any other kind of JSON would be told of as a type of this program, and an array read as a line.
fn not_an_object(text: &str) -> Result<(), String> {
    let kind = match text.trim_ascii_start().as_bytes().first() {
        None | Some(b'{') => return Ok(()),
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b'0'..=b'9' | b'-') => "a number",
        Some(b't' | b'f' | b'n') => "a word",
        Some(_) => "no JSON",
    };
    Err(format!("a message is a JSON object; this is {kind}"))
}

/// An instant to the millisecond, or the milliseconds that [`units::show_instant`] falls back to.
fn create_time(text: &str) -> Result<Timestamp, String> {
    if let Some(ms) = text.strip_suffix(MS).and_then(|ms| ms.parse().ok()) {
        return Ok(Timestamp(ms));
    }
    let instant = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        format!(
            "create_time {text:?} is no instant as in RFC 3339: write it as 2026-01-31T12:00:00.000Z"
        )
    })?;
    if instant.unix_timestamp_nanos() % NS_PER_MS != 0 {
        return Err(format!(
            "create_time {text:?} is finer than a millisecond: write three digits of a second"
        ));
    }
    units::instant(text).map_err(|()| format!("create_time {text:?} is out of bounds"))
}

/// serde_json says where, counting lines within the text; here there is one.
fn json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let cut = text
        .rfind(" at line ")
        .map_or(text.as_str(), |at| &text[..at]);
    format!("{cut} (column {})", error.column())
}

fn decode(field: &str, text: &str) -> Result<Vec<u8>, String> {
    STANDARD
        .decode(text)
        .map_err(|error| format!("{field} is no base64 as in RFC 4648 section 4: {error}"))
}

/// A string stands for its text, null for no body, anything else for its own compact notation.
fn body(raw: &RawValue) -> Result<Option<Vec<u8>>, String> {
    match raw.get().as_bytes().first() {
        Some(b'"') => {
            let text: String = serde_json::from_str(raw.get()).map_err(|e| json_error(&e))?;
            Ok(Some(text.into_bytes()))
        }
        Some(b'n') => Ok(None),
        _ => Ok(Some(compact(raw.get()).into_bytes())),
    }
}

/// Drops what JSON calls insignificant white space; numbers stay as they were written.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in json.chars() {
        if quoted {
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            quoted = c == '"';
        }
        out.push(c);
    }
    out
}

/// A field that is there, also as null.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// A field that is there, also as null.
fn there<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A line as it is written.
#[derive(Serialize)]
struct Shown<'a> {
    topic: &'a str,
    queue: u32,
    offset: u64,
    id: String,
    #[serde(skip_serializing_if = "is_zero")]
    attempt: u16,
    append_time: String,
    #[serde(flatten)]
    message: ShownMessage<'a>,
}

/// The message itself.
#[derive(Serialize)]
struct ShownMessage<'a> {
    create_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys_base64: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    properties: serde_json::Map<String, serde_json::Value>,
    #[serde(flatten)]
    body: ShownBody<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ShownBody<'a> {
    Json { body: &'a RawValue },
    Text { body: Option<&'a str> },
    Bytes { body_base64: String },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(attempt: &u16) -> bool {
    *attempt == 0
}

/// Where a stored message stands.
pub(crate) struct Place {
    queue: u32,
    offset: Offset,
    id: MessageId,
    attempt: u16,
    append_time: Timestamp,
}

impl Place {
    pub(crate) fn of(received: &Received) -> Self {
        Self {
            queue: received.queue_index,
            offset: received.offset,
            id: received.message_id,
            attempt: received.attempt,
            append_time: received.append_time,
        }
    }
}

/// A message that was found without its place. A body is JSON only if its value has the same text,
/// numbers as they were written; any other is the string of its text.
pub(crate) fn value(message: &Message) -> serde_json::Value {
    let mut shown = shown(message);
    if let ShownBody::Json { body } = shown.body
        && !is_kept_as_value(body.get())
    {
        shown.body = ShownBody::Text {
            body: Some(body.get()),
        };
    }
    serde_json::to_value(shown).expect("no number of it is out of range")
}

fn is_kept_as_value(text: &str) -> bool {
    let value: Result<serde_json::Value, _> = serde_json::from_str(text);
    let again = value.map(|value| value.to_string());
    again.is_ok_and(|again| again == text)
}

/// Appends a message and a line feed.
pub(crate) fn write(out: &mut Vec<u8>, topic: &str, place: &Place, message: &Message) {
    let shown = Shown {
        topic,
        queue: place.queue,
        offset: place.offset.0,
        id: place.id.to_string(),
        attempt: place.attempt,
        append_time: units::show_instant(place.append_time),
        message: shown(message),
    };
    let line = serde_json::to_string(&shown).expect("a line has a text");
    out.extend_from_slice(output::json_for_terminals(Cow::Owned(line)).as_bytes());
    out.push(b'\n');
}

fn shown(message: &Message) -> ShownMessage<'_> {
    let texts: Option<Vec<&str>> = message
        .keys
        .iter()
        .map(|key| std::str::from_utf8(key).ok())
        .collect();
    let (key, keys, keys_base64) = match texts.as_deref() {
        Some([key]) => (Some(*key), Vec::new(), Vec::new()),
        Some(keys) => (None, keys.to_vec(), Vec::new()),
        None => {
            let keys = message.keys.iter().map(|key| STANDARD.encode(key));
            (None, Vec::new(), keys.collect())
        }
    };
    ShownMessage {
        create_time: (message.create_time != Timestamp(0))
            .then(|| units::show_instant(message.create_time)),
        key,
        keys,
        keys_base64,
        tag: message.tag.as_deref(),
        group: message.group.as_deref(),
        properties: property::shown_all(&message.properties),
        body: shown_body(message.body.as_deref()),
    }
}

/// Bytes as the fields that end in `base64` have them.
pub(crate) fn base64_of(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads what [`base64_of`] wrote.
pub(crate) fn bytes_of(base64: &str) -> Result<Vec<u8>, String> {
    STANDARD
        .decode(base64)
        .map_err(|error| format!("{base64:?} is no base64 as in RFC 4648 section 4: {error}"))
}

/// JSON objects and arrays stand as they are if reading them back gives the same bytes, and nothing in
/// them has to be escaped for a terminal.
fn shown_body(body: Option<&[u8]>) -> ShownBody<'_> {
    let Some(bytes) = body else {
        return ShownBody::Text { body: None };
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return ShownBody::Bytes {
            body_base64: STANDARD.encode(bytes),
        };
    };
    if text.starts_with(['{', '['])
        && !output::has_controls(text)
        && let Ok(raw) = serde_json::from_str::<&RawValue>(text)
        && compact(raw.get()) == text
    {
        return ShownBody::Json { body: raw };
    }
    ShownBody::Text { body: Some(text) }
}

#[cfg(test)]
mod tests;
