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
        ("[]", "a message is a JSON object; this is an array"),
        (
            r#"[null,[],[],null,null,{},null,"",null,null,null,null,null,null,null]"#,
            "this is an array",
        ),
        (r#""text""#, "this is a string"),
        ("12", "this is a number"),
        ("null", "this is a word"),
        ("UA", "this is no JSON"),
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
            "an integer is -9223372036854775808 to",
        ),
        (
            r#"{"properties":{"a":-1e400},"body":1}"#,
            "the property \"a\" is -1e400; a number is at most 1.79",
        ),
        (
            r#"{"properties":{"a":{"f64":"big"}},"body":1}"#,
            "f64 is NaN",
        ),
        (
            r#"{"create_time":"2026-01-31T12:00:00.0001Z","body":1}"#,
            "finer than a millisecond",
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
            r#""append_time":"2026-01-31T12:00:00.000Z","create_time":null,"key":"k","body":{"a":1}}"#,
            "\n"
        )
    );
}

/// The message that reading the line gives; the same again from what is printed of it, in a line and
/// in a document.
fn comes_back(line: &str) -> Message {
    let message = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let again = parse(written(&message).trim_end()).unwrap();
    assert!(same(&again, &message), "{line}: {again:?}");
    let document = value(&message).to_string();
    assert!(same(&parse(&document).unwrap(), &message), "{document}");
    message
}

/// Equal, and a NaN equals itself if its bits do.
fn same(one: &Message, other: &Message) -> bool {
    let bits = |message: &Message| {
        let values = message.properties.iter().map(|(name, value)| match value {
            Value::F64(double) => format!("{name}={:x}", double.to_bits()),
            value => format!("{name}={value:?}"),
        });
        values.collect::<Vec<_>>()
    };
    let plain = |message: &Message| Message {
        properties: Vec::new(),
        ..message.clone()
    };
    bits(one) == bits(other) && plain(one) == plain(other)
}

#[test]
fn numbers_of_a_body_stay_as_they_were_written() {
    for number in [
        "1e400",
        "-0",
        "2.50",
        "1E2",
        "123456789012345678901234567890",
    ] {
        let message = comes_back(&format!(r#"{{"body":{{"n":{number}}}}}"#));
        let body = format!(r#"{{"n":{number}}}"#);
        assert_eq!(message.body.as_deref(), Some(body.as_bytes()));
        assert!(written(&message).contains(&body));
    }
}

#[test]
fn numbers_and_times_that_json_lacks_come_back() {
    for (double, bits) in [
        ("NaN", f64::NAN.to_bits()),
        ("inf", f64::INFINITY.to_bits()),
        ("-inf", f64::NEG_INFINITY.to_bits()),
        ("7ff8000000000001", 0x7ff8_0000_0000_0001),
    ] {
        let message = comes_back(&format!(
            r#"{{"properties":{{"a":[{{"f64":"{double}"}},0.1,-0]}},"body":null}}"#
        ));
        assert!(matches!(message.properties[0].1, Value::F64(f) if f.to_bits() == bits));
    }
    for (text, ms) in [
        ("null", 0),
        (r#""9223372036854775807 ms""#, i64::MAX),
        (r#""2026-01-31T14:00:00.25+02:00""#, 1_769_860_800_250),
        (r#""0000-01-01T00:00:00Z""#, -62_167_219_200_000),
    ] {
        let message = comes_back(&format!(r#"{{"create_time":{text},"body":null}}"#));
        assert_eq!(message.create_time, Timestamp(ms), "{text}");
    }
}

#[test]
fn a_body_that_a_terminal_would_obey_is_escaped_and_comes_back() {
    for control in ['\u{7f}', '\u{85}', '\u{9b}'] {
        for body in [format!("a{control}2J"), format!(r#"{{"a":"{control}2J"}}"#)] {
            let message = Message {
                create_time: Timestamp(1),
                ..Message::new(body)
            };
            let line = written(&message);
            assert!(!line.contains(control), "{line:?}");
            assert_eq!(parse(line.trim_end()).unwrap(), message);
        }
    }
}

/// A generator of lines that `publish` takes, of every field and many kinds of values.
struct Lines(u64);

impl Lines {
    fn below(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn text(&mut self) -> String {
        let length = self.below(6);
        let text: String = (0..length)
            .map(|_| {
                let range = [0x20, 0x80, 0xa0, 0x3000, 0x11_0000][self.below(5) as usize];
                char::from_u32(self.below(range) as u32).unwrap_or('?')
            })
            .collect();
        serde_json::to_string(&text).unwrap()
    }

    fn number(&mut self) -> String {
        match self.below(4) {
            0 => format!("{}", self.below(u64::MAX).cast_signed()),
            1 => format!("{:e}", f64::from_bits(self.below(0x7ff0 << 48))),
            2 => format!("-{}.{}0", self.below(1_000), self.below(1_000)),
            _ => format!("{}e-{}", self.below(10), self.below(400)),
        }
    }

    fn scalar(&mut self) -> String {
        match self.below(7) {
            0 => "null".to_owned(),
            1 => "true".to_owned(),
            2 => self.text(),
            3 => format!(r#"{{"base64":"{}"}}"#, STANDARD.encode(self.text())),
            4 => format!(r#"{{"f64":"{:016x}"}}"#, self.below(u64::MAX)),
            _ => self.number(),
        }
    }

    fn json(&mut self, depth: u64) -> String {
        match self.below(if depth == 0 { 3 } else { 5 }) {
            0 => self.text(),
            1 => format!(
                "{}e{}",
                self.number().replace(['e', 'E'], "1"),
                self.below(900)
            ),
            2 => "false".to_owned(),
            3 => format!("[{} , {}]", self.json(depth - 1), self.json(depth - 1)),
            _ => format!(
                "{{{}:{}, \"z\":1, \"a\":2}}",
                self.text(),
                self.json(depth - 1)
            ),
        }
    }

    fn line(&mut self) -> String {
        let keys = match self.below(4) {
            0 => String::new(),
            1 => format!(r#""key":{},"#, self.text()),
            2 => format!(r#""keys":[{},{}],"#, self.text(), self.text()),
            _ => format!(r#""keys_base64":["{}"],"#, STANDARD.encode(self.text())),
        };
        let time = match self.below(3) {
            0 => "null".to_owned(),
            1 => format!(r#""{} ms""#, self.below(u64::MAX).cast_signed()),
            _ => format!(
                r#""20{:02}-01-31T12:00:00.{:03}Z""#,
                self.below(100),
                self.below(1_000)
            ),
        };
        let properties: Vec<String> = (0..self.below(3))
            .map(|at| match self.below(3) {
                0 => format!(r#""p{at}":[{},{}]"#, self.scalar(), self.scalar()),
                _ => format!(r#""p{at}":{}"#, self.scalar()),
            })
            .collect();
        let body = match self.below(3) {
            0 => format!(r#""body_base64":"{}""#, STANDARD.encode(self.text())),
            _ => format!(r#""body":{}"#, self.json(3)),
        };
        let tag = self.text();
        format!(
            r#"{{{keys}"tag":{tag},"create_time":{time},"properties":{{{}}},{body}}}"#,
            properties.join(",")
        )
    }
}

#[test]
fn whatever_is_published_is_printed_and_published_again_as_the_same() {
    let mut lines = Lines(1);
    let mut taken = 0;
    for _ in 0..20_000 {
        let line = lines.line();
        if parse(&line).is_ok() {
            comes_back(&line);
            taken += 1;
        }
    }
    assert!(taken > 10_000, "too few lines are messages: {taken}");
}
