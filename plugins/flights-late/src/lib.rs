//! Keeps flights that arrived late: more than 60 minutes, or as many as the configuration says.
//!
//! The body is the flight's row as JSON, with the arrival delay in minutes as `arr_delay`. A delay
//! that is missing (the flight was cancelled or diverted) is not late.

use serde::Deserialize;
use tidegate_plugin_sdk::{Message, filter};

/// `{"minutes": 60}`; nothing at all means the same.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Config {
    /// A flight is late if it arrived more minutes after its time than this.
    #[serde(default = "an_hour")]
    minutes: f64,
}

fn an_hour() -> f64 {
    60.0
}

/// What is read of a row; the rest is passed over without being stored.
#[derive(Deserialize)]
struct Flight {
    arr_delay: Option<f64>,
}

fn parse(config: &[u8]) -> Result<Config, String> {
    let config = match config {
        [] => b"{}",
        config => config,
    };
    serde_json::from_slice(config)
        .map_err(|error| format!("the configuration reads {{\"minutes\": 60}}: {error}"))
}

fn keep(config: &Config, message: &Message<'_>) -> bool {
    message
        .body()
        .and_then(|body| serde_json::from_slice::<Flight>(body).ok())
        .and_then(|flight| flight.arr_delay)
        .is_some_and(|delay| delay > config.minutes)
}

filter!(parse, keep, needs: [body]);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_plugin_sdk::testing::{Sample, check};

    fn kept(config: &str, bodies: &[&str]) -> Vec<bool> {
        let samples: Vec<_> = bodies.iter().map(|body| Sample::new(*body)).collect();
        check::<Filter>(config.as_bytes(), &samples).unwrap()
    }

    #[test]
    fn more_than_an_hour_is_late() {
        let row = |delay: &str| format!(r#"{{"dep_delay":99,"arr_delay":{delay},"carrier":"UA"}}"#);
        let rows = ["61", "60", "60.5", "-20", "null", "1e3"].map(row);
        assert_eq!(
            kept("", &rows.each_ref().map(String::as_str)),
            [true, false, true, false, false, true]
        );
    }

    #[test]
    fn a_missing_delay_is_not_late() {
        let bodies = [
            r#"{"dep_delay":99}"#,
            "{}",
            "",
            "no json",
            r#"{"arr_delay":"99"}"#,
        ];
        assert_eq!(kept("", &bodies), [false; 5]);
        assert_eq!(
            check::<Filter>(b"", &[Sample::default()]),
            Ok(vec![false]),
            "a null body"
        );
    }

    #[test]
    fn the_configuration_moves_the_line() {
        let rows = [r#"{"arr_delay":20}"#, r#"{"arr_delay":14}"#];
        assert_eq!(kept(r#"{"minutes":15}"#, &rows), [true, false]);
        assert_eq!(kept("{}", &rows), [false, false]);
    }

    #[test]
    fn a_configuration_that_is_none_is_refused() {
        for bad in ["60", r#"{"minutes":"x"}"#, r#"{"hours":1}"#, "{"] {
            let error = check::<Filter>(bad.as_bytes(), &[]).unwrap_err();
            assert!(error.starts_with("the configuration reads"), "{error}");
        }
    }
}
