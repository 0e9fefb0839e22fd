//! `tidegate demo`: a week of flights from a file through the log and a filter to a consumer.

mod broker;
mod steps;

use std::env;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::units;
use broker::Broker;
use steps::{Demo, Seen};

const OWNER_ONLY: u32 = 0o700;
/// On disk even where `/tmp` is memory, so that a durable acknowledgement costs what it costs.
const DISK_TEMP: &str = "/var/tmp";

/// Show a week of flights: publish it, filter it, consume it
///
/// Starts a broker of its own on a new folder, deploys a filter that lets late flights pass,
/// publishes the flights, consumes them through the filter, and stops the broker again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The filter, as `cargo xtask guests` builds it
    #[arg(
        long,
        value_name = "FILE",
        default_value = "target/guests/flights-late.wasm"
    )]
    plugin: PathBuf,
    /// The flights, one per line
    #[arg(
        long,
        value_name = "FILE",
        default_value = "examples/flights/week.jsonl.gz"
    )]
    flights: PathBuf,
    /// Where the broker keeps its data; must be empty [default: a new folder for temporary files]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

pub(crate) async fn run(app: &mut App, args: Args) -> Result<()> {
    for (file, hint) in [
        (
            &args.plugin,
            "cargo xtask guests, or name it: --plugin FILE",
        ),
        (
            &args.flights,
            "run this in the repository, or name them: --flights FILE",
        ),
    ] {
        if !file.is_file() {
            return Err(Failure::file("read", file, &"there is no such file").hint(hint));
        }
    }
    let folder = folder(args.data)?;
    let mut interrupt = Interrupt::listen()?;
    tokio::select! {
        shown = show(app, &folder, &args.plugin, &args.flights) => shown,
        () = interrupt.wait() => Err(Failure::Interrupted),
    }
}

/// An empty folder that only its owner reads.
fn folder(given: Option<PathBuf>) -> Result<PathBuf> {
    let folder = given.clone().unwrap_or_else(|| {
        let temp = match env::var_os("TMPDIR") {
            None if Path::new(DISK_TEMP).is_dir() => PathBuf::from(DISK_TEMP),
            _ => env::temp_dir(),
        };
        temp.join(format!("tidegate-demo-{}", std::process::id()))
    });
    fs::DirBuilder::new()
        .recursive(given.is_some())
        .mode(OWNER_ONLY)
        .create(&folder)
        .and_then(|()| fs::canonicalize(&folder))
        .and_then(|folder| Ok((fs::read_dir(&folder)?.next().is_none(), folder)))
        .map_err(|error| Failure::file("make the folder", &folder, &error))
        .and_then(|(empty, found)| {
            if empty {
                return Ok(found);
            }
            Err(Failure::file("use", &folder, &"it isn't empty")
                .hint("name a new folder: --data FOLDER"))
        })
}

async fn show(app: &mut App, folder: &Path, plugin: &Path, flights: &Path) -> Result<()> {
    say(
        app,
        "Flights that left New York in the week of 8 July 2013, one message each.",
    )?;
    let broker = Broker::start(folder).await?;
    step(
        app,
        "broker",
        &format!(
            "ready after {} on {}",
            units::show_duration(broker.started_in),
            broker.data.display()
        ),
    )?;
    let demo = Demo::log_in(&broker).await?;
    step(
        app,
        "login",
        &format!(
            "with the one-time token; the key is in {}",
            broker.home.display()
        ),
    )?;
    let seen = through(app, &demo, plugin, flights).await;
    demo.close().await;
    let seen = seen.map_err(|failure| failure.because_too(&broker.log_hint()))?;
    let next = next_steps(&broker);
    broker.stop().await?;
    step(app, "broker", "stopped")?;
    if app.out.is_json() {
        return app.out.done("demo", "", &value(&seen, folder));
    }
    say(app, "\nThe latest of them:")?;
    for late in &seen.latest {
        say(app, &format!("  {late}"))?;
    }
    say(app, &next)
}

async fn through(app: &mut App, demo: &Demo, plugin: &Path, flights: &Path) -> Result<Seen> {
    step(app, "topic", &demo.make_topic().await?)?;
    step(app, "plugin", &demo.deploy(plugin).await?)?;
    step(app, "view", &demo.make_view().await?)?;
    let (sum, elapsed) = demo.publish(app, flights).await?;
    step(
        app,
        "publish",
        &format!(
            "{} flights, {}, in {}: {} messages/s, each acknowledged at level {}",
            units::count(sum.messages),
            units::bytes(sum.bytes),
            units::show_duration(elapsed),
            units::count(units::per_second(sum.messages, elapsed)),
            sum.level_name().unwrap_or("unknown")
        ),
    )?;
    let mut seen = demo.consume().await?;
    seen.published = sum.messages;
    seen.publish_ms = millis(elapsed);
    step(
        app,
        "consume",
        &format!(
            "{} of {} flights passed the filter, in {}: {} messages/s judged, all matches acknowledged",
            units::count(seen.matched),
            units::count(sum.messages),
            units::show_duration(seen.elapsed),
            units::count(units::per_second(sum.messages, seen.elapsed))
        ),
    )?;
    Ok(seen)
}

fn say(app: &mut App, text: &str) -> Result<()> {
    if app.out.is_json() || app.out.is_quiet() {
        return Ok(());
    }
    app.out.line(text)
}

fn step(app: &mut App, noun: &str, text: &str) -> Result<()> {
    say(app, &format!("  {noun:8} {text}"))
}

fn millis(elapsed: std::time::Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

fn value(seen: &Seen, folder: &Path) -> serde_json::Value {
    json!({
        "kind": "demo",
        "published": seen.published,
        "publish_ms": seen.publish_ms,
        "matched": seen.matched,
        "consume_ms": millis(seen.elapsed),
        "acknowledged": seen.acknowledged,
        "folder": folder.display().to_string(),
    })
}

fn next_steps(broker: &Broker) -> String {
    let program = program();
    let (home, data) = (broker.home.display(), broker.data.display());
    let (address, folder) = (&broker.listen, broker.folder.display());
    format!(
        "\nThe data is still there. Start the broker on it again:\n  \
           {program} serve --data {data} --listen {address}\n\
         and in another shell:\n  \
           export TIDEGATE_HOME={home}\n  \
           {program} topic info flights\n  \
           {program} consume flights@late --count 3\n  \
           {program} group create billing\n  \
           {program} consume flights@late --group billing\n  \
           {program} group info billing\n\
         Done with it: rm -r {folder}"
    )
}

/// The program as a shell in the current folder finds it.
fn program() -> String {
    let Ok(program) = env::current_exe() else {
        return "tidegate".to_owned();
    };
    let here = env::current_dir().unwrap_or_default();
    program
        .strip_prefix(&here)
        .unwrap_or(&program)
        .display()
        .to_string()
}
