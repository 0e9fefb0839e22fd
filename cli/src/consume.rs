//! `tidegate consume`.

mod exec;
mod feed;
mod outage;
mod reading;

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_client::{Client, Gap, Received, Source, StartAt};
use tidegate_model::code;

use crate::app::App;
use crate::connect::with_client_for;
use crate::failure::{Exit, Failure, Result};
use crate::interrupt::Interrupt;
use crate::line::{self, Place};
use crate::output::API_VERSION;
use crate::progress::Progress;
use crate::units;

pub(crate) use feed::{Feed, Group};
use feed::{Pull, Settled};
use outage::{OUTAGE_MAX, Outage};
use reading::{Reader, Step};

/// How long nothing must come before a group's consumer ends, where nothing else is asked for.
const IDLE_DEFAULT: Duration = Duration::from_secs(2);
const INVISIBLE_DEFAULT: &str = "30s";
/// How long an interrupted command waits for the outcome of its acknowledgements.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// Print the messages of a topic or view, one per line
///
/// With --group they are leased, printed, then acknowledged; members of a group share them. Without
/// it they are read as they are stored, all queues or one.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The topic or view
    #[arg(value_name = "TOPIC[@VIEW]")]
    source: String,
    /// The view, as another way to write TOPIC@VIEW
    #[arg(long, value_name = "NAME")]
    view: Option<String>,
    /// Consume as a member of this group
    #[arg(short, long, value_name = "NAME")]
    group: Option<String>,
    /// earliest, latest, an offset, an instant (2026-01-31T12:00:00Z or @1769860800) or an age (-2h);
    /// with --group only where the group has no cursor yet
    #[arg(long, value_name = "WHERE", default_value = "earliest", value_parser = units::start, allow_hyphen_values = true)]
    from: StartAt,
    /// End after this many messages
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End once nothing came for this long [default: 2s with --group; else the end is the end]
    #[arg(long, value_name = "DURATION", value_parser = units::duration, conflicts_with = "follow")]
    until_idle: Option<Duration>,
    /// Wait for more until interrupted, also while the broker is away
    #[arg(short = 'F', long)]
    follow: bool,
    /// What a line is
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: Format,
    /// Run this for each message, which it reads from standard input; exit code 0 acknowledges it, any
    /// other lets it come again
    #[arg(
        long,
        value_name = "COMMAND",
        requires = "group",
        conflicts_with = "no_ack"
    )]
    exec: Option<String>,
    /// Don't acknowledge: the messages come again when their leases end
    #[arg(long, requires = "group")]
    no_ack: bool,
    /// How long a message stays leased
    #[arg(long, value_name = "DURATION", requires = "group", default_value = INVISIBLE_DEFAULT, value_parser = units::invisible)]
    invisible: Duration,
    /// Read this queue alone
    #[arg(long, value_name = "N", conflicts_with = "group")]
    queue: Option<u32>,
}

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A message as JSON, as `tidegate publish` reads it, and where it was
    #[default]
    Jsonl,
    /// The body of a message
    Raw,
}

/// What was printed.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    messages: u64,
    bytes: u64,
    acknowledged: u64,
    /// Given back because their command failed.
    failed: u64,
    /// Whose acknowledgement the broker refused.
    lapsed: u64,
    /// The connection broke in between.
    outage: bool,
    /// Passed over because they are damaged.
    damaged: u64,
    /// Ranges of those.
    gaps: u64,
    /// Until the last message was printed: waiting for more doesn't count.
    elapsed: Duration,
}

pub(crate) async fn run(app: &mut App, args: Args) -> Result<()> {
    let namespace = app.namespace()?;
    let source = match &args.view {
        Some(view) if args.source.contains('@') => {
            return Err(
                Failure::usage(format!("{} names a view already", args.source))
                    .hint(format!("leave out --view {view}")),
            );
        }
        Some(view) => namespace.source(&format!("{}@{view}", args.source))?,
        None => namespace.source(&args.source)?,
    };
    let group = args
        .group
        .as_deref()
        .map(|group| namespace.group(group))
        .transpose()?;
    let outage_max = if args.follow {
        Duration::MAX
    } else {
        OUTAGE_MAX
    };
    with_client_for(app, outage_max, async |app, client| {
        let mut interrupt = Interrupt::listen()?;
        refuse_beyond_end(client, &args, &source).await?;
        let mut printer = Printer::new(app, &args, &source);
        let ended = match group {
            Some(group) => {
                let group = Group {
                    group,
                    source: source.clone(),
                    start: args.from,
                    invisible: args.invisible,
                };
                match &args.exec {
                    Some(command) => {
                        let pull = Pull::one_by_one(client, &group, args.count);
                        exec::run(
                            app,
                            client,
                            &args,
                            pull,
                            command,
                            &mut printer,
                            &mut interrupt,
                        )
                        .await
                    }
                    None => shared(app, client, &args, &group, &mut printer, &mut interrupt).await,
                }
            }
            None => read(app, client, &args, &source, &mut printer, &mut interrupt).await,
        };
        let sum = printer.end();
        told(app, &source, &sum, ended)
    })
    .await
}

/// As a member of a group: lease, print, acknowledge.
async fn shared(
    app: &mut App,
    client: &Client,
    args: &Args,
    group: &Group,
    printer: &mut Printer,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let idle = args.idle();
    let mut feed = Feed::open(client, group, args.count).await?;
    let mut outage = Outage::watch(client, args.follow);
    let ended = loop {
        if feed.is_done() {
            break Ok(());
        }
        let lull_now = idle.filter(|_| !feed.is_pull() && !outage.is_now());
        let batch = tokio::select! {
            batch = feed.next(idle) => batch,
            () = outage.changed(app) => continue,
            () = lull(lull_now) => Ok(Vec::new()),
            () = interrupt.wait() => break Err(Failure::Interrupted),
        };
        let worked = match batch {
            // A broker that has died is as silent as one that has nothing.
            Ok(batch) if batch.is_empty() => {
                let alive = feed.is_pull() || {
                    tokio::select! {
                        alive = client.group(&group.group) => match alive {
                            Ok(_) => true,
                            Err(error) if Failure::from(error.clone()).is_outage() => false,
                            Err(error) => break Err(error.into()),
                        },
                        () = interrupt.wait() => break Err(Failure::Interrupted),
                    }
                };
                match idle {
                    Some(_) if alive => break Ok(()),
                    _ => continue,
                }
            }
            Ok(batch) => {
                outage.over(app);
                match printer.print(app, &batch) {
                    Ok(()) if !args.no_ack => {
                        acked(app, &mut feed, &batch, &mut outage, interrupt).await
                    }
                    printed => printed,
                }
            }
            Err(failure) if feed.is_pull() => tokio::select! {
                waited = outage.wait(app, failure) => waited,
                () = interrupt.wait() => break Err(Failure::Interrupted),
            },
            Err(failure) => Err(failure),
        };
        if let Err(failure) = worked {
            break Err(failure);
        }
    };
    let settled = if matches!(ended, Err(Failure::Interrupted)) {
        match tokio::time::timeout(SETTLE_MAX, feed.close()).await {
            Ok(settled) => settled,
            Err(_) => {
                app.out.warn(
                    "the broker is away: what became of the last acknowledgements isn't known; \
                     messages that they didn't reach come again",
                );
                Ok(Settled::default())
            }
        }
    } else {
        feed.close().await
    };
    if let Ok(settled) = &settled {
        printer.sum.acknowledged = settled.done;
        printer.sum.lapsed = settled.lapsed;
    }
    printer.sum.outage = outage.seen;
    ended.and(settled.map(drop))
}

/// Acknowledges; what a pull took is said again after an outage, a push does so by itself.
async fn acked(
    app: &mut App,
    feed: &mut Feed,
    batch: &[Received],
    outage: &mut Outage,
    interrupt: &mut Interrupt,
) -> Result<()> {
    loop {
        match feed.ack(batch).await {
            Err(failure) if feed.is_pull() => tokio::select! {
                waited = outage.wait(app, failure) => waited?,
                () = interrupt.wait() => return Err(Failure::Interrupted),
            },
            ended => return ended,
        }
    }
}

impl Args {
    /// How long nothing must come before a member of a group ends.
    fn idle(&self) -> Option<Duration> {
        match (self.until_idle, self.follow) {
            (Some(idle), _) => Some(idle),
            (None, true) => None,
            (None, false) => Some(IDLE_DEFAULT),
        }
    }
}

/// An offset that no queue has reached is a mistake, most often a time without its `@`.
async fn refuse_beyond_end(client: &Client, args: &Args, source: &Source) -> Result<()> {
    let StartAt::Offset(offset) = args.from else {
        return Ok(());
    };
    let topic = client.topic(source.topic()).await?;
    let ends = topic.queues.iter().enumerate();
    let end = ends
        .filter(|(index, _)| args.queue.is_none_or(|queue| queue as usize == *index))
        .map(|(_, queue)| queue.next)
        .max();
    let Some(end) = end.filter(|end| offset > *end) else {
        return Ok(());
    };
    let hint = match units::as_epoch(offset.0) {
        Some(epoch) => format!("for a time since 1970, write --from {epoch}"),
        None => format!(
            "tidegate topic info {} shows the offsets",
            topic.topic.topic
        ),
    };
    Err(Failure::new(
        code::OFFSET_OUT_OF_RANGE,
        format!("--from {offset} is beyond the end of {source}, which is at offset {end}"),
    )
    .hint(hint))
}

/// Never ends without an idle time.
async fn lull(idle: Option<Duration>) {
    match idle {
        Some(idle) => tokio::time::sleep(idle).await,
        None => std::future::pending().await,
    }
}

/// Without a group: what is stored, queue by queue.
async fn read(
    app: &mut App,
    client: &Client,
    args: &Args,
    source: &Source,
    printer: &mut Printer,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let mut reader = Reader::open(client, source, args.queue, args.from).await?;
    let mut outage = Outage::watch(client, args.follow);
    let mut last = Instant::now();
    loop {
        let left = args.count.map(|count| count - printer.sum.messages);
        if left == Some(0) {
            return Ok(());
        }
        let step = tokio::select! {
            step = reader.next(client, source, left) => step,
            () = interrupt.wait() => return Err(Failure::Interrupted),
        };
        let step = match step {
            Ok(step) => step,
            Err(failure) => {
                tokio::select! {
                    waited = outage.wait(app, failure) => waited?,
                    () = interrupt.wait() => return Err(Failure::Interrupted),
                }
                last = Instant::now();
                continue;
            }
        };
        outage.over(app);
        if !step.is_empty() {
            printer.print_step(app, &step)?;
            last = Instant::now();
        } else if reader.is_at_end() {
            match (args.until_idle, args.follow) {
                (Some(idle), _) if last.elapsed() >= idle => return Ok(()),
                (Some(_), _) | (None, true) => {}
                (None, false) => return Ok(()),
            }
            tokio::select! {
                () = reader.pause() => {}
                () = interrupt.wait() => return Err(Failure::Interrupted),
            }
        }
    }
}

/// Writes messages to standard output.
struct Printer {
    format: Format,
    topic: String,
    lines: Vec<u8>,
    sum: Sum,
    begun: Instant,
    progress: Progress,
}

impl Printer {
    fn new(app: &App, args: &Args, source: &Source) -> Self {
        Self {
            format: args.format,
            topic: source.topic().topic.as_str().to_owned(),
            lines: Vec::new(),
            sum: Sum::default(),
            begun: Instant::now(),
            progress: Progress::of_writing(app),
        }
    }

    /// The line of a message, counted as printed.
    fn line(&mut self, received: &Received) -> &[u8] {
        self.lines.clear();
        self.add(received);
        self.sum.elapsed = self.begun.elapsed();
        &self.lines
    }

    fn add(&mut self, received: &Received) {
        let message = &received.message;
        let body = message.body.as_deref().unwrap_or_default();
        match self.format {
            Format::Jsonl => {
                line::write(&mut self.lines, &self.topic, &Place::of(received), message);
            }
            Format::Raw => {
                self.lines.extend_from_slice(body);
                self.lines.push(b'\n');
            }
        }
        self.sum.messages += 1;
        self.sum.bytes += u64::try_from(body.len()).expect("a length fits 64 bits");
    }

    /// Returns once the lines are with whoever reads them.
    fn print(&mut self, app: &mut App, batch: &[Received]) -> Result<()> {
        self.lines.clear();
        for received in batch {
            self.add(received);
        }
        self.progress.at(self.sum.bytes, self.sum.messages);
        app.out.data(&self.lines)?;
        self.sum.elapsed = self.begun.elapsed();
        Ok(())
    }

    /// Messages, and the gaps between them where they are.
    fn print_step(&mut self, app: &mut App, step: &Step) -> Result<()> {
        let mut messages = &step.messages[..];
        for gap in &step.gaps {
            let before = messages.partition_point(|received| received.offset < gap.from);
            let (before, behind) = messages.split_at(before);
            self.print(app, before)?;
            self.gap(app, step.queue, gap)?;
            messages = behind;
        }
        self.print(app, messages)
    }

    /// Says what is left out; where programs read, among the lines as well.
    fn gap(&mut self, app: &mut App, queue: u32, gap: &Gap) -> Result<()> {
        let (first, end) = (gap.from.0, gap.to.0);
        let count = end.saturating_sub(first);
        self.sum.damaged += count;
        self.sum.gaps += 1;
        app.out.warn(&format!(
            "queue {queue}: the messages at offsets {first} to {} are damaged and left out: {} of \
             them ({})",
            end.saturating_sub(1),
            units::count(count),
            gap.code
        ));
        if !app.out.is_json() {
            return Ok(());
        }
        let record = json!({
            "apiVersion": API_VERSION,
            "kind": "Gap",
            "topic": self.topic,
            "queue": queue,
            "from": first,
            "to": end,
            "count": count,
            "code": gap.code.to_string(),
        });
        app.out.data(format!("{record}\n").as_bytes())
    }

    fn end(self) -> Sum {
        self.progress.end();
        self.sum
    }
}

/// Messages are the data here, so the summary goes to standard error in every format.
fn told(app: &mut App, source: &Source, sum: &Sum, ended: Result<()>) -> Result<()> {
    if sum.lapsed > 0 {
        let lapsed = units::count(sum.lapsed);
        app.out.warn(&if sum.outage {
            format!(
                "the broker refused {lapsed} acknowledgements that were said again after the \
                 connection had broken: those that had reached it before are done, the other \
                 messages come again"
            )
        } else {
            format!(
                "the broker refused {lapsed} acknowledgements: the leases had ended; what no other \
                 member has acknowledged comes again (--invisible makes leases longer)"
            )
        });
    }
    if matches!(ended, Ok(()) | Err(Failure::Interrupted)) {
        app.out.note(&format!(
            "{} ({}) of {source} in {}{}",
            units::messages(sum.messages),
            units::bytes(sum.bytes),
            units::show_duration(sum.elapsed),
            acknowledged(sum)
        ));
    }
    ended?;
    if sum.gaps == 0 {
        return Ok(());
    }
    Err(Failure::new(
        code::QUARANTINED,
        format!(
            "{} messages of {source} in {} damaged ranges were left out",
            units::count(sum.damaged),
            units::count(sum.gaps)
        ),
    )
    .exits(Exit::Damaged)
    .hint("stop the broker, and `tidegate store verify` on its data folder says what is lost"))
}

fn acknowledged(sum: &Sum) -> String {
    let mut out = String::new();
    for (count, what) in [(sum.acknowledged, "acknowledged"), (sum.failed, "failed")] {
        if count > 0 {
            out.push_str(&format!(", {} {what}", units::count(count)));
        }
    }
    out
}
