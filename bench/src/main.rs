//! Measures Tidegate against the limits of the machine it runs on, or many queues against few, both in
//! the same run.
//!
//! Prints tables in Markdown; `docs/performance.md` says how to build and run it. Figures are
//! ratios first: a shared machine moves the absolutes, hardly the ratios.

// What is measured, a verb each.
mod filter;
mod neighbours;
mod publish;
mod scale;
mod start;
mod store;
mod transport;

// With what: CPU time, the bare disk, the machine and its memory, tables.
mod cpu;
mod disk;
mod machine;
mod table;

/// That of the `tidegate` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use table::Table;

#[derive(Parser)]
#[command(about = "Measures Tidegate against the limits of this machine")]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Seconds for each figure.
    #[arg(long, default_value_t = 3, global = true)]
    seconds: u64,
    /// Folder for data, on the disk to be measured.
    #[arg(long, default_value = "target/bench", global = true)]
    folder: PathBuf,
    /// Gigabytes in the log for the start-up figure; needs twice as much free space.
    #[arg(long, default_value_t = 5, global = true)]
    start_gb: u64,
}

#[derive(Subcommand)]
enum What {
    /// Durable publishes against the bare rate of fdatasync.
    Publish,
    /// Publish and consume against raw quinn.
    Transport,
    /// Filters, native and as guests.
    Filter,
    /// A healthy view beside hostile guests; not part of a run of all.
    Neighbours {
        /// Folder of guests in text (`.wat`).
        #[arg(long, default_value = "sandbox-tests/hostile")]
        guests: PathBuf,
    },
    /// Start-up time and idle memory.
    Start,
    /// The log by itself, against memcpy, bare syncs and maps.
    Store,
    /// A million queues, and ten million messages in one; not part of a run of all.
    Scale {
        /// Queues.
        #[arg(long, default_value_t = 1_000_000)]
        queues: u64,
    },
    /// The process of `scale`, started by it.
    #[command(hide = true)]
    ScaleChild {
        step: String,
        queues: u64,
        messages: u64,
        data: PathBuf,
    },
    /// The raw quinn peer of `transport`, started by it.
    #[command(hide = true)]
    RawPeer,
    /// The compiling child of `filter`, started by it.
    #[command(hide = true)]
    CompileChild,
}

fn main() -> anyhow::Result<ExitCode> {
    let mut args = Args::parse();
    match args.what.take() {
        Some(What::RawPeer) => transport::raw_peer().map(|()| ExitCode::SUCCESS),
        Some(What::CompileChild) => Ok(tidegate_runtime::compiler::child_main()),
        Some(What::ScaleChild {
            step,
            queues,
            messages,
            data,
        }) => scale::child(&step, queues, messages, &data).map(|()| ExitCode::SUCCESS),
        what => measure(&args, what.as_ref()).map(|()| ExitCode::SUCCESS),
    }
}

fn measure(args: &Args, what: Option<&What>) -> anyhow::Result<()> {
    let time = Duration::from_secs(args.seconds);
    std::fs::create_dir_all(&args.folder)?;
    machine::describe().print();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let all = what.is_none();
    let show = |table: Table| table.print();
    if all || matches!(what, Some(What::Publish)) {
        show(runtime.block_on(publish::measure(&args.folder, time))?);
    }
    if all || matches!(what, Some(What::Transport)) {
        show(runtime.block_on(transport::measure(&args.folder, time))?);
    }
    if all || matches!(what, Some(What::Filter)) {
        show(filter::measure(&args.folder, time)?);
        show(runtime.block_on(filter::measure_product(&args.folder))?);
    }
    if all || matches!(what, Some(What::Store)) {
        store::measure(&args.folder, time)?
            .into_iter()
            .for_each(show);
    }
    if let Some(What::Neighbours { guests }) = what {
        show(runtime.block_on(neighbours::measure(&args.folder, guests, time))?);
    }
    if let Some(What::Scale { queues }) = what {
        show(scale::measure(&args.folder, *queues, &runtime)?);
    }
    if all || matches!(what, Some(What::Start)) {
        show(runtime.block_on(start::measure(&args.folder, args.start_gb))?);
    }
    Ok(())
}
