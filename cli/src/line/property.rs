//! Properties of a message as fields of a JSON object.
//!
//! JSON has no bytes, no NaN and no infinity: an object with one field stands for them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};
use tidegate_model::Value;

use super::decode;

/// Name of the only field of a property that holds bytes.
const BYTES_FIELD: &str = "base64";
/// Name of the only field of a property that holds a number which JSON doesn't have.
const DOUBLE_FIELD: &str = "f64";
/// Digits of a NaN that is told by its bits.
const BITS_DIGITS: usize = 16;

pub(super) fn read_all<'de, D>(from: D) -> Result<Vec<(String, Value)>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Properties;

    impl<'de> Visitor<'de> for Properties {
        type Value = Vec<(String, Value)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of properties")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut out: Self::Value = Vec::new();
            while let Some((name, raw)) = map.next_entry::<String, &RawValue>()? {
                if out.iter().any(|(other, _)| *other == name) {
                    return Err(A::Error::custom(format!(
                        "the property {name:?} is there twice: write its values as an array"
                    )));
                }
                if raw.get().starts_with('[') {
                    let values: Vec<&RawValue> =
                        serde_json::from_str(raw.get()).map_err(A::Error::custom)?;
                    for raw in values {
                        let value = read(&name, raw.get()).map_err(A::Error::custom)?;
                        out.push((name.clone(), value));
                    }
                } else {
                    let value = read(&name, raw.get()).map_err(A::Error::custom)?;
                    out.push((name, value));
                }
            }
            Ok(out)
        }
    }

    from.deserialize_map(Properties)
}

fn read(name: &str, json: &str) -> Result<Value, String> {
    if json.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return number(name, json);
    }
    match serde_json::from_str(json).map_err(|error| error.to_string())? {
        Json::Null => Ok(Value::Null),
        Json::Bool(truth) => Ok(Value::Bool(truth)),
        Json::String(text) => Ok(Value::String(text)),
        Json::Object(fields) => object(name, &fields),
        Json::Number(_) => unreachable!("a number begins with a digit or a minus"),
        Json::Array(_) => Err(format!(
            "the property {name:?} has an array inside an array"
        )),
    }
}

/// From the digits themselves: the nearest double to what was written.
fn number(name: &str, json: &str) -> Result<Value, String> {
    let is_whole = !json.contains(['.', 'e', 'E']);
    if is_whole && json != "-0" {
        return json.parse().map(Value::I64).map_err(|_| {
            format!(
                "the property {name:?} is {json}; an integer is {} to {}",
                i64::MIN,
                i64::MAX
            )
        });
    }
    match json.parse::<f64>() {
        Ok(double) if double.is_finite() => Ok(Value::F64(double)),
        _ => Err(format!(
            "the property {name:?} is {json}; a number is at most {:e}",
            f64::MAX
        )),
    }
}

fn object(name: &str, fields: &Map<String, Json>) -> Result<Value, String> {
    let only = fields.iter().next().filter(|_| fields.len() == 1);
    match only {
        Some((field, Json::String(text))) if field == BYTES_FIELD => {
            decode(BYTES_FIELD, text).map(Value::Bytes)
        }
        Some((field, Json::String(text))) if field == DOUBLE_FIELD => {
            double(text).map(Value::F64).ok_or_else(|| {
                format!(
                    "the property {name:?} is {text:?}; {DOUBLE_FIELD} is NaN, inf, -inf or the \
                     {BITS_DIGITS} hexadecimal digits of its bits"
                )
            })
        }
        _ => Err(format!(
            "the property {name:?} is an object; only {{\"{BYTES_FIELD}\": \"...\"}} and \
             {{\"{DOUBLE_FIELD}\": \"...\"}} are one"
        )),
    }
}

fn double(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "inf" => Some(f64::INFINITY),
        "-inf" => Some(f64::NEG_INFINITY),
        bits if bits.len() == BITS_DIGITS => u64::from_str_radix(bits, 16).ok().map(f64::from_bits),
        _ => None,
    }
}

fn shown_double(double: f64) -> Json {
    if double.is_finite() {
        return double.into();
    }
    let text = if double.is_infinite() {
        if double > 0.0 { "inf" } else { "-inf" }.to_owned()
    } else if double.to_bits() == f64::NAN.to_bits() {
        "NaN".to_owned()
    } else {
        format!("{:016x}", double.to_bits())
    };
    json!({ DOUBLE_FIELD: text })
}

/// Values of one name stand together, as an array.
pub(super) fn shown_all(properties: &[(String, Value)]) -> Map<String, Json> {
    let mut out = Map::new();
    for (at, (name, value)) in properties.iter().enumerate() {
        let value = shown(value);
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

fn shown(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(truth) => (*truth).into(),
        Value::I64(integer) => (*integer).into(),
        Value::F64(double) => shown_double(*double),
        Value::String(text) => text.as_str().into(),
        Value::Bytes(bytes) => json!({ BYTES_FIELD: STANDARD.encode(bytes) }),
    }
}
