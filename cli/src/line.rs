//! A message as a line of JSON: what `publish` reads and `consume` writes.
//!
//! What `consume` wrote can be published again: the fields that only a stored message has are read
//! and passed over.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_client::Received;
use tidegate_model::{Message, MessageId, Offset, Timestamp, Value};

use crate::units;

/// Name of the only field of a property that holds bytes.
const BYTES_FIELD: &str = "base64";

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
    #[serde(default, deserialize_with = "properties")]
    properties: Vec<(String, Value)>,
    #[serde(borrow, default, deserialize_with = "present")]
    body: Option<&'a RawValue>,
    body_base64: Option<String>,
    create_time: Option<String>,
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
        Some(text) => units::instant(&text)
            .map_err(|()| format!("create_time {text:?} is no instant as in RFC 3339"))?,
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

fn properties<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, Value)>, D::Error> {
    struct Properties;

    impl<'de> Visitor<'de> for Properties {
        type Value = Vec<(String, Value)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of properties")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut out: Self::Value = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, serde_json::Value>()? {
                if out.iter().any(|(other, _)| *other == name) {
                    return Err(A::Error::custom(format!(
                        "the property {name:?} is there twice: write its values as an array"
                    )));
                }
                match value {
                    serde_json::Value::Array(values) => {
                        for value in values {
                            out.push((name.clone(), property(&name, value)?));
                        }
                    }
                    value => {
                        let value = property(&name, value)?;
                        out.push((name, value));
                    }
                }
            }
            Ok(out)
        }
    }

    from.deserialize_map(Properties)
}

fn property<E: serde::de::Error>(name: &str, value: serde_json::Value) -> Result<Value, E> {
    use serde_json::Value as Json;
    Ok(match value {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(truth),
        Json::String(text) => Value::String(text),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::I64(integer),
            (None, Some(double)) if !number.is_u64() => Value::F64(double),
            _ => {
                return Err(E::custom(format!(
                    "the property {name:?} is {number}; an integer is at most {}",
                    i64::MAX
                )));
            }
        },
        Json::Object(fields) => match (fields.len(), fields.get(BYTES_FIELD)) {
            (1, Some(Json::String(text))) => {
                Value::Bytes(decode(BYTES_FIELD, text).map_err(E::custom)?)
            }
            _ => {
                return Err(E::custom(format!(
                    "the property {name:?} is an object; only {{\"{BYTES_FIELD}\": \"...\"}} is one"
                )));
            }
        },
        Json::Array(_) => {
            return Err(E::custom(format!(
                "the property {name:?} has an array inside an array"
            )));
        }
    })
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
    #[serde(skip_serializing_if = "is_unset")]
    create_time: ShownTime,
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

struct ShownTime(Timestamp);

impl Serialize for ShownTime {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&units::show_instant(self.0))
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(attempt: &u16) -> bool {
    *attempt == 0
}

fn is_unset(time: &ShownTime) -> bool {
    time.0 == Timestamp(0)
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

/// A message that was found without its place.
pub(crate) fn value(message: &Message) -> serde_json::Value {
    serde_json::to_value(shown(message)).expect("a message has a JSON value")
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
    serde_json::to_writer(&mut *out, &shown).expect("a line has a text, and a Vec takes it");
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
        create_time: ShownTime(message.create_time),
        key,
        keys,
        keys_base64,
        tag: message.tag.as_deref(),
        group: message.group.as_deref(),
        properties: shown_properties(&message.properties),
        body: shown_body(message.body.as_deref()),
    }
}

fn shown_properties(properties: &[(String, Value)]) -> serde_json::Map<String, serde_json::Value> {
    use serde_json::Value as Json;
    let mut out = serde_json::Map::new();
    for (at, (name, value)) in properties.iter().enumerate() {
        let value = shown_value(value);
        match out.get_mut(name) {
            None if properties[at + 1..].iter().any(|(other, _)| other == name) => {
                out.insert(name.clone(), Json::Array(vec![value]));
            }
            None => {
                out.insert(name.clone(), value);
            }
            Some(Json::Array(values)) => values.push(value),
            Some(_) => unreachable!("a name that comes again began as an array"),
        }
    }
    out
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

fn shown_value(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(truth) => (*truth).into(),
        Value::I64(integer) => (*integer).into(),
        // JSON has no infinity and no NaN; they print as null, as JavaScript does it.
        Value::F64(double) => (*double).into(),
        Value::String(text) => text.as_str().into(),
        Value::Bytes(bytes) => serde_json::json!({ BYTES_FIELD: STANDARD.encode(bytes) }),
    }
}

/// JSON objects and arrays stand as they are if reading them back gives the same bytes.
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
        && let Ok(raw) = serde_json::from_str::<&RawValue>(text)
        && compact(raw.get()) == text
    {
        return ShownBody::Json { body: raw };
    }
    ShownBody::Text { body: Some(text) }
}

#[cfg(test)]
mod tests;
