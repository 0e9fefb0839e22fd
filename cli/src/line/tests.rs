use super::*;

fn refused(text: &str) -> String {
    parse(text).expect_err("this is no message")
}

#[test]
fn a_flight_is_a_message() {
    let message = parse(
        r#"{"key":"1545","tag":"UA","group":"N14228","properties":{"origin":"EWR","distance":1400},"body":{"year": 2013, "dep_delay": 2.0}}"#,
    )
    .unwrap();
    assert_eq!(message.keys, [b"1545"]);
    assert_eq!(message.tag.as_deref(), Some("UA"));
    assert_eq!(message.group.as_deref(), Some("N14228"));
    assert_eq!(
        message.properties,
        [
            ("origin".to_owned(), Value::String("EWR".to_owned())),
            ("distance".to_owned(), Value::I64(1400)),
        ]
    );
    assert_eq!(
        message.body.as_deref(),
        Some(&br#"{"year":2013,"dep_delay":2.0}"#[..])
    );
    assert!(message.create_time.0 > 0);
}

#[test]
fn bodies_are_text_json_bytes_or_null() {
    for (field, body) in [
        (r#""body":"caf\u00e9""#, Some("café".as_bytes())),
        (r#""body":"""#, Some(&b""[..])),
        (r#""body":null"#, None),
        (
            r#""body":12345678901234567890123"#,
            Some(b"12345678901234567890123"),
        ),
        (
            r#""body": [1, " a \" b ", {"c" : 1e0}] "#,
            Some(br#"[1," a \" b ",{"c":1e0}]"#),
        ),
        (r#""body_base64":"/wA=""#, Some(b"\xff\0")),
    ] {
        let message = parse(&format!("{{{field}}}")).unwrap();
        assert_eq!(message.body.as_deref(), body, "{field}");
    }
}

#[test]
fn properties_keep_type_and_order() {
    let message = parse(
        r#"{"properties":{"z":null,"t":true,"i":-3,"f":1.0,"many":["a",2],"raw":{"base64":"AQI="}},"body":null}"#,
    )
    .unwrap();
    let expected = [
        ("z", Value::Null),
        ("t", Value::Bool(true)),
        ("i", Value::I64(-3)),
        ("f", Value::F64(1.0)),
        ("many", Value::String("a".to_owned())),
        ("many", Value::I64(2)),
        ("raw", Value::Bytes(vec![1, 2])),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    assert_eq!(message.properties, expected);
}

#[test]
fn what_is_wrong_is_said() {
    for (text, part) in [
        ("", "EOF while parsing a value (column 0)"),
        ("{", "EOF while parsing an object (column 1)"),
        ("[]", "invalid length 0, expected struct Line"),
        (
            r#"{"body":null,"bdy":1}"#,
            "unknown field `bdy`, expected one of `key`",
        ),
        (r#"{"body":1,"body":2}"#, "duplicate field `body`"),
        (
            r#"{"key":7,"body":null}"#,
            "invalid type: integer `7`, expected a string",
        ),
        (r#"{"tag":"a"}"#, "it has no body"),
        (
            r#"{"key":"a","keys":["b"],"body":null}"#,
            "two of key, keys and keys_base64",
        ),
        (
            r#"{"body":1,"body_base64":""}"#,
            "both body and body_base64",
        ),
        (r#"{"body_base64":"%"}"#, "body_base64 is no base64"),
        (
            r#"{"properties":{"a":1,"a":2},"body":1}"#,
            "property \"a\" is there twice",
        ),
        (
            r#"{"properties":{"a":{"b":1}},"body":1}"#,
            "property \"a\" is an object",
        ),
        (
            r#"{"properties":{"a":[[1]]},"body":1}"#,
            "array inside an array",
        ),
        (
            r#"{"properties":{"a":18446744073709551615},"body":1}"#,
            "an integer is at most",
        ),
        (r#"{"create_time":"yesterday","body":1}"#, "no instant"),
    ] {
        let error = refused(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

fn written(message: &Message) -> String {
    let place = Place {
        queue: 2,
        offset: Offset(41),
        id: "3-1042-7".parse().unwrap(),
        attempt: 1,
        append_time: units::instant("2026-01-31T12:00:00Z").unwrap(),
    };
    let mut out = Vec::new();
    write(&mut out, "flights", &place, message);
    String::from_utf8(out).unwrap()
}

#[test]
fn what_is_written_can_be_read_again() {
    let messages = [
        Message::new("text").key("1545").tag("UA").group("N14228"),
        Message::new(r#"{"year":2013,"tail":"\"N\""}"#)
            .key("a")
            .key("b"),
        Message::new("{\"not\": \"compact\"}"),
        Message::new("null"),
        Message::new("12"),
        Message::new("[1,"),
        Message::new(vec![0xff, 0xfe]).key(vec![0x80]).key("text"),
        Message::new("line\nfeed"),
        Message::default(),
        Message::new("")
            .property("a", Value::I64(1))
            .property("b", Value::Bytes(vec![0]))
            .property("a", Value::F64(0.5)),
    ];
    for message in messages {
        let message = Message {
            create_time: Timestamp(1_373_234_400_500),
            ..message
        };
        let line = written(&message);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let mut again = parse(line.trim_end()).unwrap();
        again.properties.sort_by(|a, b| a.0.cmp(&b.0));
        let mut message = message;
        message.properties.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(again, message, "{line}");
    }
}

#[test]
fn a_line_says_where_the_message_was() {
    let line = written(&Message::new(r#"{"a":1}"#).key("k"));
    assert_eq!(
        line,
        concat!(
            r#"{"topic":"flights","queue":2,"offset":41,"id":"3-1042-7","attempt":1,"#,
            r#""append_time":"2026-01-31T12:00:00Z","key":"k","body":{"a":1}}"#,
            "\n"
        )
    );
}
