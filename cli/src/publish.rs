//! `tidegate publish`.

mod sending;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_client::{Client, Compression, Producer, ProducerOptions};
use tidegate_model::{Message, TopicRef, Value, limits};

use crate::app::App;
use crate::connect::with_client;
use crate::failure::{Failure, Result};
use crate::input::{Input, Parse};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::{line, units};

use sending::{Progressed, Sending};

pub(crate) use sending::Sum;

/// Messages sent ahead of their acknowledgements, where no number is asked for.
const IN_FLIGHT_DEFAULT: u64 = 16_384;
const IN_FLIGHT_MAX: u64 = 1_048_576;
/// Bytes of the largest batch that the protocol takes.
const BATCH_BYTES_MAX: i64 = 4 * 1024 * 1024;
const _: () = assert!(BATCH_BYTES_MAX as usize <= limits::SECTION_BYTES_MAX);
/// Below every message's size: each goes out by itself.
const SINGLE_BATCH_BYTES: usize = 1;

/// Publish messages, one per line, from a file or standard input
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The topic
    topic: String,
    /// A file, gzip or not; standard input for - or without it
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What a line is
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Bytes at which a batch goes out without waiting for more
    #[arg(long, value_name = "BYTES", conflicts_with = "single", value_parser = clap::value_parser!(u32).range(1..=BATCH_BYTES_MAX))]
    batch_bytes: Option<u32>,
    /// How long a message waits for company in its batch
    #[arg(long, value_name = "DURATION", conflicts_with = "single", value_parser = units::duration)]
    linger: Option<Duration>,
    /// Send each message in a batch of its own
    #[arg(long)]
    single: bool,
    /// Messages sent ahead of their acknowledgements
    #[arg(long, value_name = "N", default_value_t = IN_FLIGHT_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=IN_FLIGHT_MAX))]
    in_flight: u64,
    /// Compress bodies, batch by batch
    #[arg(long)]
    lz4: bool,
    /// With --format raw: the key of every message; may be repeated
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// With --format raw: the tag of every message
    #[arg(long)]
    tag: Option<String>,
    /// With --format raw: the message group of every message
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// With --format raw: a property of every message, as text; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    property: Vec<String>,
}

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A message as JSON: {"key":"1545","tag":"UA","properties":{"origin":"EWR"},"body":...}
    #[default]
    Jsonl,
    /// The body of a message
    Raw,
}

impl Args {
    fn parse(&self) -> Result<Parse> {
        let heads = !self.key.is_empty() || self.tag.is_some() || self.group.is_some();
        match self.format {
            Format::Jsonl if heads || !self.property.is_empty() => Err(Failure::usage(
                "--key, --tag, --group and --property belong to --format raw",
            )
            .because("a line of JSON carries its own")),
            Format::Jsonl => Ok(json_lines()),
            Format::Raw => {
                let mut head = Message {
                    keys: self
                        .key
                        .iter()
                        .map(|key| key.clone().into_bytes())
                        .collect(),
                    tag: self.tag.clone(),
                    group: self.group.clone(),
                    ..Message::default()
                };
                for property in &self.property {
                    let (name, value) = property.split_once('=').ok_or_else(|| {
                        Failure::usage(format!("{property:?} is no property"))
                            .hint("write --property NAME=VALUE")
                    })?;
                    head = head.property(name, Value::String(value.to_owned()));
                }
                // A line without a byte is an empty body.
                Ok(Box::new(move |text| {
                    Ok(Some(Message {
                        body: Some(text.to_vec()),
                        create_time: units::now(),
                        ..head.clone()
                    }))
                }))
            }
        }
    }

    fn options(&self) -> ProducerOptions {
        let default = ProducerOptions::default();
        let (linger, batch_bytes) = if self.single {
            (Duration::ZERO, SINGLE_BATCH_BYTES)
        } else {
            let bytes = self
                .batch_bytes
                .and_then(|bytes| usize::try_from(bytes).ok());
            (
                self.linger.unwrap_or(default.linger),
                bytes.unwrap_or(default.batch_bytes),
            )
        };
        ProducerOptions {
            linger,
            batch_bytes,
            max_in_flight: usize::try_from(self.in_flight).expect("its limit fits"),
            compression: if self.lz4 {
                Compression::Lz4
            } else {
                Compression::None
            },
            ..default
        }
    }
}

fn json_lines() -> Parse {
    Box::new(|text| {
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        std::str::from_utf8(text)
            .map_err(|error| format!("it is no UTF-8: {error}"))
            .and_then(line::parse)
            .map(Some)
    })
}

pub(crate) async fn run(app: &mut App, args: Args) -> Result<()> {
    let topic = app.namespace()?.topic(&args.topic)?;
    let parse = args.parse()?;
    let input = Input::open(args.file.as_deref())?;
    let options = args.options();
    with_client(app, async |app, client| {
        let producer = client.producer(&topic, options).await?;
        let begun = Instant::now();
        let mut interrupt = Interrupt::listen()?;
        let progress = Progress::of_reading(app, input.bytes);
        let (sum, ended) = publish(app, producer, input, parse, &progress, &mut interrupt).await;
        progress.end();
        told(app, &topic, &sum, begun.elapsed(), ended)
    })
    .await
}

/// Publishes the demonstration's input; any failure ends it.
pub(crate) async fn publish_file(
    app: &mut App,
    client: &Client,
    topic: &TopicRef,
    file: &Path,
) -> Result<(Sum, Duration)> {
    let input = Input::open(Some(file))?;
    let producer = client.producer(topic, ProducerOptions::default()).await?;
    let begun = Instant::now();
    let progress = Progress::of_reading(app, input.bytes);
    let mut interrupt = Interrupt::listen()?;
    let (sum, ended) = publish(
        app,
        producer,
        input,
        json_lines(),
        &progress,
        &mut interrupt,
    )
    .await;
    progress.end();
    ended.map(|()| (sum, begun.elapsed()))
}

/// Sends until the input ends, fails or is interrupted; then waits for what is under way.
async fn publish(
    app: &mut App,
    producer: Producer,
    input: Input,
    parse: Parse,
    progress: &Progress,
    interrupt: &mut Interrupt,
) -> (Sum, Result<()>) {
    let read = input.read.clone();
    let mut chunks = input.start(parse);
    let mut sending = Sending::start(producer);
    let ended = loop {
        let chunk = tokio::select! {
            chunk = chunks.recv() => chunk,
            () = interrupt.wait() => break Err(Failure::Interrupted),
        };
        let sent = match chunk {
            None => break Ok(()),
            Some(Err(failure)) => break Err(failure),
            Some(Ok(chunk)) => tokio::select! {
                sent = sending.send(chunk) => sent,
                () = interrupt.wait() => break Err(Failure::Interrupted),
            },
        };
        match sent {
            Ok(Progressed::Sent) => {}
            Ok(Progressed::Refused) => break Ok(()),
            Err(failure) => break Err(failure),
        }
        progress.at(read.load(Ordering::Relaxed), sending.acknowledged());
    };
    if matches!(ended, Err(Failure::Interrupted)) {
        app.out
            .note("waiting for the outcome of what is under way; Ctrl-C gives up on it");
    }
    let (sum, outcome) = sending.finish().await;
    (sum, outcome.and(ended))
}

fn told(
    app: &mut App,
    topic: &TopicRef,
    sum: &Sum,
    elapsed: Duration,
    ended: Result<()>,
) -> Result<()> {
    let rate = units::per_second(sum.messages, elapsed);
    let messages = units::messages(sum.messages);
    match ended {
        Ok(()) => {
            let level = sum
                .level_name()
                .map(|level| format!(", each durable at level {level}"));
            app.out.note(&format!(
                "published {messages} ({}) to {topic} in {}: {} messages/s{}",
                units::bytes(sum.bytes),
                units::show_duration(elapsed),
                units::count(rate),
                level.unwrap_or_default()
            ));
            if app.out.is_json() {
                let value = json!({
                    "kind": "published",
                    "topic": topic.topic.as_str(),
                    "messages": sum.messages,
                    "bytes": sum.bytes,
                    "duplicates": sum.duplicates,
                    "level": sum.level_name(),
                    "elapsed_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
                    "messages_per_second": rate,
                });
                app.out.done(topic.topic.as_str(), "", &value)?;
            }
            Ok(())
        }
        Err(Failure::Interrupted) => {
            app.out.note(&format!(
                "interrupted; published to {topic} and acknowledged before: {messages}"
            ));
            Err(Failure::Interrupted)
        }
        Err(failure) => Err(failure.because_too(&format!(
            "published to {topic} and acknowledged before: {messages}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        let line = ["publish", "flights"].iter().chain(line);
        Line::try_parse_from(line).map(|line| line.args).unwrap()
    }

    #[test]
    fn a_raw_line_is_a_body_under_the_given_head() {
        let args = args(&[
            "--format",
            "raw",
            "--key",
            "k",
            "--tag",
            "t",
            "--group",
            "g",
            "--property",
            "a=b=c",
        ]);
        let message = args
            .parse()
            .map(|parse| parse(b" \xffbody "))
            .unwrap()
            .unwrap()
            .expect("each raw line is a body");
        assert!(message.create_time.0 > 0);
        let expected = Message::new(&b" \xffbody "[..])
            .key("k")
            .tag("t")
            .group("g")
            .property("a", Value::String("b=c".to_owned()));
        assert_eq!(
            message,
            Message {
                create_time: message.create_time,
                ..expected
            }
        );
    }

    #[test]
    fn a_blank_line_is_a_body_if_lines_are_raw() {
        let raw = args(&["--format", "raw"]).parse().unwrap();
        for line in [&b""[..], b" ", b"\r"] {
            let message = raw(line).unwrap().expect("each raw line is a body");
            assert_eq!(message.body.as_deref(), Some(line));
            assert_eq!(json_lines()(line), Ok(None));
        }
    }

    #[test]
    fn heads_and_json_lines_exclude_each_other() {
        for extra in [["--tag", "t"], ["--property", "a=b"], ["--key", "k"]] {
            assert!(args(&extra).parse().is_err());
        }
        assert!(
            args(&["--format", "raw", "--property", "a"])
                .parse()
                .is_err()
        );
    }

    #[test]
    fn single_messages_wait_for_no_company() {
        let options = args(&["--single", "--in-flight", "64"]).options();
        assert_eq!(
            (options.linger, options.batch_bytes, options.max_in_flight),
            (Duration::ZERO, 1, 64)
        );
        assert_eq!(
            args(&["--linger", "5ms"]).options().linger,
            Duration::from_millis(5)
        );
    }
}
