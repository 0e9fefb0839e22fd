//! `docs/formats/wire.md` names every type, every code and the numbers that bind.

use std::path::PathBuf;

use tidegate_model::code::TABLE;
use tidegate_wire::FrameType;
use tidegate_wire::limits;

fn page() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/wire.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_frame_type_stands_in_the_page() {
    let page = page();
    for kind in FrameType::ALL {
        let row = format!("| {:#04x} | {} |", kind.0, kind.name());
        assert!(page.contains(&row), "no row {row}");
    }
}

#[test]
fn every_code_stands_in_the_page_and_no_other() {
    let page = page();
    let start = page.find("## Error codes").unwrap();
    let end = start + page[start + 3..].find("\n## ").map_or(0, |at| at + 3);
    let rows: Vec<&str> = page[start..end]
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains(char::is_numeric))
        .collect();
    let expected: Vec<String> = TABLE
        .iter()
        .map(|entry| {
            let remedy = format!("{:?}", entry.remedy).to_lowercase();
            format!("| {} | {} | {remedy} |", entry.code.0, entry.name)
        })
        .collect();
    for row in &expected {
        assert!(rows.contains(&row.as_str()), "no row {row}");
    }
    assert_eq!(rows.len(), expected.len() + 1, "with the row of 0");
}

#[test]
fn every_limit_stands_in_the_page() {
    let page = page();
    for (name, value) in [
        ("PREAUTH_BYTES_MAX", limits::PREAUTH_BYTES_MAX),
        ("HELLO_FRAME_BYTES_MAX", limits::HELLO_FRAME_BYTES_MAX),
        ("CONTROL_FRAME_BYTES_MAX", limits::CONTROL_FRAME_BYTES_MAX),
        ("SECTION_FRAME_BYTES_MAX", limits::SECTION_FRAME_BYTES_MAX),
        ("REQUEST_FRAME_BYTES_MAX", limits::REQUEST_FRAME_BYTES_MAX),
        ("REPLY_FRAME_BYTES_MAX", limits::REPLY_FRAME_BYTES_MAX),
        ("REQUEST_FIELDS_MAX", limits::REQUEST_FIELDS_MAX),
        (
            "CONNECTION_PARTIAL_BYTES_MAX",
            limits::CONNECTION_PARTIAL_BYTES_MAX,
        ),
        ("STREAMS_MAX", limits::STREAMS_MAX),
        ("CONSUME_STREAMS_MAX", limits::CONSUME_STREAMS_MAX),
        ("SUBSCRIPTIONS_MAX", limits::SUBSCRIPTIONS_MAX),
        ("ALIASES_MAX", limits::ALIASES_MAX),
        ("PUBLISHES_IN_FLIGHT_MAX", limits::PUBLISHES_IN_FLIGHT_MAX),
        (
            "PUBLISH_BYTES_IN_FLIGHT_MAX",
            limits::PUBLISH_BYTES_IN_FLIGHT_MAX,
        ),
        ("QUEUE_IN_FLIGHT_MAX", limits::QUEUE_IN_FLIGHT_MAX),
        ("SETTLES_IN_FLIGHT_MAX", limits::SETTLES_IN_FLIGHT_MAX),
        ("SETTLE_RUNS_MAX", limits::SETTLE_RUNS_MAX),
        ("CREDIT_MESSAGES_MAX", limits::CREDIT_MESSAGES_MAX as usize),
        ("CREDIT_BYTES_MAX", limits::CREDIT_BYTES_MAX as usize),
        ("REPLY_DELIVERIES_MAX", limits::REPLY_DELIVERIES_MAX),
        ("REPLY_DELIVERY_BYTES_MAX", limits::REPLY_DELIVERY_BYTES_MAX),
        ("TEXT_BYTES_MAX", limits::TEXT_BYTES_MAX),
        (
            "BACKUP_PIECE_BYTES_MAX",
            limits::BACKUP_PIECE_BYTES_MAX as usize,
        ),
        ("BACKUP_FILES_PAGE", limits::BACKUP_FILES_PAGE),
    ] {
        let row = page
            .lines()
            .find(|line| line.contains(&format!("`{name}`")))
            .unwrap_or_else(|| panic!("no row for {name}"));
        let digits: String = row
            .split('|')
            .nth(2)
            .unwrap()
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        assert_eq!(digits, value.to_string(), "{row}");
    }
}
