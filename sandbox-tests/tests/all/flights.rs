//! The flights as messages, and which of them are late, found without Tidegate.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde_json::Value;

/// A flight is late above this many minutes.
const LATE_MINUTES: i64 = 60;

/// The committed week.
pub(crate) fn week() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/flights/week.jsonl.gz")
}

/// Lines of a file of messages, compressed if its name ends so.
pub(crate) fn lines(file: &Path) -> Vec<String> {
    let opened = File::open(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let raw = BufReader::new(opened);
    let plain: Box<dyn Read> = match file.extension() {
        Some(end) if end == "gz" => Box::new(MultiGzDecoder::new(raw)),
        _ => Box::new(raw),
    };
    BufReader::new(plain).lines().map(Result::unwrap).collect()
}

/// Bodies of the late ones among messages, sorted; a missing delay is not late.
pub(crate) fn late(lines: &[String]) -> Vec<String> {
    let mut late = bodies(lines);
    late.retain(|body| {
        let row: Value = serde_json::from_str(body).unwrap();
        row["arr_delay"]
            .as_i64()
            .is_some_and(|delay| delay > LATE_MINUTES)
    });
    late
}

/// Bodies of messages as lines, sorted.
pub(crate) fn bodies(lines: &[String]) -> Vec<String> {
    let mut bodies: Vec<String> = lines.iter().map(|line| field(line, "body")).collect();
    bodies.sort();
    bodies
}

/// A field of a message, in the order of its members, which JSON leaves open and we keep.
fn field(line: &str, name: &str) -> String {
    let message: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    message[name].to_string()
}

#[test]
fn the_week_has_as_many_late_flights_as_its_page_says() {
    let week = lines(&week());
    assert_eq!((week.len(), late(&week).len()), (6759, 1184));
}
