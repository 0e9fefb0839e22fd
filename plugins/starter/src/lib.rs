//! Keeps large orders: of 100 or more, or of as much as the configuration says.
//!
//! The body is the order as JSON, with its `amount`. An order without an amount is not large.

use serde::Deserialize;
use tidegate_plugin_sdk::{Message, filter};

/// `{"at_least": 100}`; nothing at all means the same.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The smallest amount that is kept.
    #[serde(default = "hundred")]
    at_least: f64,
}

fn hundred() -> f64 {
    100.0
}

/// What is read of an order; the rest is passed over without being stored.
#[derive(Deserialize)]
struct Order {
    amount: Option<f64>,
}

/// Reads a binding's configuration, once. What it refuses is shown to whoever makes the binding.
fn parse(config: &[u8]) -> Result<Config, String> {
    let config = match config {
        [] => b"{}",
        config => config,
    };
    serde_json::from_slice(config)
        .map_err(|error| format!("the configuration reads {{\"at_least\": 100}}: {error}"))
}

/// Whether a message is kept: an ordinary function, called once for each message.
fn keep(config: &Config, message: &Message<'_>) -> bool {
    message
        .body()
        .and_then(|body| serde_json::from_slice::<Order>(body).ok())
        .and_then(|order| order.amount)
        .is_some_and(|amount| amount >= config.at_least)
}

filter!(parse, keep, needs: [body]);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_plugin_sdk::testing::{Sample, check};

    #[test]
    fn large_orders_are_kept() {
        let samples = [
            Sample::new(r#"{"amount": 250.5}"#),
            Sample::new(r#"{"amount": 100}"#).tag("web"),
            Sample::new(r#"{"amount": 99.99}"#),
            Sample::new(r#"{"customer": "ada"}"#),
            Sample::new("no JSON"),
        ];
        let kept = |config: &str| check::<Filter>(config.as_bytes(), &samples).unwrap();
        assert_eq!(kept(""), [true, true, false, false, false]);
        assert_eq!(
            kept(r#"{"at_least": 200}"#),
            [true, false, false, false, false]
        );
        assert!(check::<Filter>(br#"{"atleast": 200}"#, &[]).is_err());
    }
}
