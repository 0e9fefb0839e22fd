//! Keeps messages with a property of a certain value: `{"property": "dest", "value": "LAX"}`.
//!
//! A value matches by its text: `LAX` the text `LAX`, `1400` the number 1400 whatever its type, `true`
//! the truth value, and nothing at all (`""`) a null. Where a name repeats, any of its values may
//! match.

use serde::Deserialize;
use tidegate_plugin_sdk::{Message, ValueRef, filter};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    property: String,
    value: Wanted,
}

/// The value as text; JSON's numbers and truth values may stand without quotes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Wanted {
    Text(String),
    Number(serde_json::Number),
    Bool(bool),
}

/// What is looked for, read once.
struct Match {
    property: String,
    text: String,
    number: Option<f64>,
    /// Only texts can match, which is quicker to find.
    plain: bool,
}

fn parse(config: &[u8]) -> Result<Match, String> {
    let config: Config = serde_json::from_slice(config).map_err(|error| {
        format!("the configuration reads {{\"property\": \"dest\", \"value\": \"LAX\"}}: {error}")
    })?;
    if config.property.is_empty() {
        return Err("`property` is empty; it names the property to look at".into());
    }
    let text = match config.value {
        Wanted::Text(text) => text,
        Wanted::Number(number) => number.to_string(),
        Wanted::Bool(truth) => truth.to_string(),
    };
    let number: Option<f64> = text.parse().ok();
    Ok(Match {
        property: config.property,
        plain: number.is_none() && !matches!(text.as_str(), "" | "true" | "false"),
        number,
        text,
    })
}

fn keep(wanted: &Match, message: &Message<'_>) -> bool {
    message.has_text(&wanted.property, &wanted.text)
        || !wanted.plain
            && message
                .property_values(&wanted.property)
                .any(|value| wanted.is(value))
}

impl Match {
    /// Whether a value that is no text matches.
    fn is(&self, value: ValueRef<'_>) -> bool {
        match value {
            ValueRef::Str(_) | ValueRef::Bytes(_) | ValueRef::Unknown(..) => false,
            ValueRef::Bool(truth) => self.text == if truth { "true" } else { "false" },
            ValueRef::Null => self.text.is_empty(),
            // Integers beyond 2^53 are told apart by their digits.
            ValueRef::I64(number) => self.text.parse().map_or_else(
                |_| self.number == value.as_f64(),
                |wanted: i64| wanted == number,
            ),
            ValueRef::F64(number) => self.number == Some(number),
        }
    }
}

filter!(parse, keep, needs: [properties]);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_plugin_sdk::testing::{Sample, Value, check};

    fn matches(config: &str, value: Value) -> bool {
        let sample = Sample::new("body")
            .property("origin", Value::String("JFK".into()))
            .property("dest", value);
        check::<Filter>(config.as_bytes(), &[sample]).unwrap() == [true]
    }

    fn dest(wanted: &str) -> String {
        format!(r#"{{"property":"dest","value":{wanted}}}"#)
    }

    #[test]
    fn a_value_matches_by_its_text() {
        let text = |text: &str| Value::String(text.into());
        assert!(matches(&dest("\"LAX\""), text("LAX")));
        assert!(!matches(&dest("\"LAX\""), text("lax")));
        assert!(!matches(&dest("\"JFK\""), text("LAX")));
        assert!(matches(&dest("\"LAX\""), Value::Bytes(b"LAX".to_vec())));
        assert!(matches(&dest("\"1400\""), Value::I64(1400)));
        assert!(matches(&dest("1400"), Value::I64(1400)));
        assert!(matches(&dest("1400"), text("1400")));
        assert!(matches(&dest("1400.0"), Value::I64(1400)));
        assert!(matches(&dest("1400"), Value::F64(1400.0)));
        assert!(!matches(
            &dest("9007199254740993"),
            Value::I64(9_007_199_254_740_992)
        ));
        assert!(matches(&dest("true"), Value::Bool(true)));
        assert!(!matches(&dest("true"), Value::Bool(false)));
        assert!(matches(&dest("\"\""), Value::Null));
        assert!(!matches(&dest("\"null\""), Value::Null));
    }

    #[test]
    fn any_of_repeated_values_matches_and_a_missing_one_does_not() {
        let twice = Sample::new("body")
            .property("dest", Value::I64(1))
            .property("dest", Value::I64(2));
        let none = Sample::new("body");
        assert_eq!(
            check::<Filter>(dest("2").as_bytes(), &[twice, none]),
            Ok(vec![true, false])
        );
    }

    #[test]
    fn a_bad_configuration_is_refused_with_what_is_wrong() {
        let refusal = |config: &str| check::<Filter>(config.as_bytes(), &[]).unwrap_err();
        for config in [
            "",
            "{}",
            r#"{"property":"dest"}"#,
            r#"{"property":"dest","value":[]}"#,
        ] {
            let error = refusal(config);
            assert!(error.starts_with("the configuration reads"), "{error}");
        }
        assert!(
            refusal(r#"{"property":"a","value":"b","mode":1}"#).contains("unknown field `mode`")
        );
        assert_eq!(
            refusal(r#"{"property":"","value":"x"}"#),
            "`property` is empty; it names the property to look at"
        );
    }
}
