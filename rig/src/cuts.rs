//! Power cuts: what of the recorded writes reached the platter, and what the log makes of it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tidegate_model::{Offset, QueueId, Timestamp};
use tidegate_store::check::Offline;
use tidegate_store::sim::Random;
use tidegate_store::{RealVfs, Store};

use crate::disk::{Disk, Event, SECTOR};
use crate::ledger::{Known, Ledger};
use crate::mounts::{Mount, run as run_program};
use crate::workload::{self, Done, Order, QUEUES, SHARDS, batch, section_of};

pub(crate) const DISK_BYTES: usize = 96 << 20;
/// One write in so many, of those in question, is torn between its sectors …
const TORN_ONE_IN: u64 = 8;
/// … and one of those in the middle of one.
const TORN_SECTOR_ONE_IN: u64 = 4;

/// What to do.
pub(crate) struct Wanted {
    pub(crate) cuts: u64,
    pub(crate) seed: u64,
    /// How long the log is worked on.
    pub(crate) seconds: u64,
    /// Flushes that the disk takes seriously: each, or one in so many. More than one is a disk that
    /// lies, and must be found out.
    pub(crate) honest_one_in: usize,
}

/// Folders of a run, all in one in memory.
pub(crate) struct Places {
    root: Mount,
    // Fields are dropped in this order.
    _mountpoint: Removed,
}

/// An empty folder that is removed when dropped.
struct Removed(std::path::PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

impl Places {
    pub(crate) fn new() -> Result<Self> {
        let root = std::env::temp_dir().join("tidegate-rig");
        std::fs::create_dir_all(&root)?;
        let places = Self {
            root: Mount::memory(&root)?,
            _mountpoint: Removed(root),
        };
        for name in ["fuse", "fs", "cut"] {
            std::fs::create_dir(places.dir(name))?;
        }
        Ok(places)
    }

    pub(crate) fn dir(&self, name: &str) -> std::path::PathBuf {
        self.root.dir().join(name)
    }
}

/// Makes a file system on the disk whose blocks are pages.
pub(crate) fn make_file_system(image: &Path) -> Result<()> {
    let image = image.to_string_lossy();
    run_program("mkfs.ext4", &["-q", "-F", "-b", "4096", "-m", "0", &image])
}

pub(crate) fn run(wanted: &Wanted) -> Result<()> {
    let places = Places::new()?;
    let disk = Disk::new(DISK_BYTES);
    let (before, events, done) = {
        let plugged = disk.plug_in(&places.dir("fuse"))?;
        make_file_system(plugged.file())?;
        let fs = Mount::ext4(plugged.file(), &places.dir("fs"))?;
        run_program("sync", &["-f", &fs.dir().to_string_lossy()])?;
        let before = disk.record();
        let order = Order {
            dir: fs.dir().join("log"),
            counter: plugged.counter(),
            result: places.dir("done"),
            seed: wanted.seed,
            seconds: wanted.seconds,
        };
        let done = order.run()?;
        let (events, after) = disk.take_events();
        fs.unmount()?;
        let mut replayed = before.clone();
        events.iter().for_each(|event| apply(&mut replayed, event));
        ensure!(replayed == after, "the record is not what happened");
        (before, events, done)
    };
    let flushes = events.iter().filter(|event| matches!(event, Event::Flush));
    println!(
        "recorded: {} events, {} flushes among them; {} units acknowledged, {} snapshots, {} segments given back",
        events.len(),
        flushes.count(),
        done.units.len(),
        done.snapshots,
        done.segments_removed
    );
    let begun = Instant::now();
    let tally = cut_all(wanted, &places, before, &events, &done)?;
    println!(
        "{} cuts in {:.0} s: {tally:?}",
        wanted.cuts,
        begun.elapsed().as_secs_f64()
    );
    ensure!(tally.losses == 0, "{} cuts lost something", tally.losses);
    Ok(())
}

#[derive(Debug, Default)]
struct Tally {
    /// Acknowledged batches that had to be there, over all cuts.
    acknowledged: u64,
    /// Batches found beyond those.
    kept: u64,
    /// Cuts with writes of which some were lost or torn.
    partial: u64,
    /// Cuts that left a torn tail of the log.
    torn_tails: u64,
    snapshots: u64,
    /// Cuts after which the file system itself can't be mounted.
    unmountable: u64,
    losses: u64,
}

/// Where the power goes: all events before `boundary` are on the platter, and of those from there
/// to `end` any.
#[derive(Clone, Copy)]
struct Cut {
    boundary: usize,
    end: usize,
    seed: u64,
}

fn draw_cuts(wanted: &Wanted, events: &[Event], random: &mut Random) -> Result<Vec<Cut>> {
    let mut boundaries = vec![0];
    let flushes = events.iter().enumerate();
    let flushes = flushes.filter(|(_, event)| matches!(event, Event::Flush));
    boundaries.extend(
        flushes
            .map(|(at, _)| at + 1)
            .step_by(wanted.honest_one_in.max(1)),
    );
    let mut cuts = Vec::new();
    for _ in 0..wanted.cuts {
        let at = usize::try_from(random.below(boundaries.len() as u64))?;
        let boundary = boundaries[at];
        let next = boundaries.get(at + 1).copied().unwrap_or(events.len());
        // The flush that ends these writes has not happened.
        let room = (next - boundary).saturating_sub(1) as u64;
        cuts.push(Cut {
            boundary,
            end: boundary + usize::try_from(random.below(room + 1))?,
            seed: random.next(),
        });
    }
    cuts.sort_by_key(|cut| cut.boundary);
    Ok(cuts)
}

fn cut_all(
    wanted: &Wanted,
    places: &Places,
    before: Vec<u8>,
    events: &[Event],
    done: &Done,
) -> Result<Tally> {
    let mut random = Random(wanted.seed ^ 0xC0_75);
    let mut tally = Tally::default();
    let mut platter = before;
    let mut applied = 0;
    let image = places.dir("image");
    for cut in draw_cuts(wanted, events, &mut random)? {
        for event in &events[applied..cut.boundary] {
            apply(&mut platter, event);
        }
        applied = cut.boundary;
        let mut after = platter.clone();
        let is_partial = apply_some(&mut after, &events[cut.boundary..cut.end], cut.seed)?;
        tally.partial += u64::from(is_partial);
        File::create(&image)?.write_all_at(&after, 0)?;
        let fs = match Mount::ext4(&image, &places.dir("cut")) {
            Ok(fs) => fs,
            Err(error) => {
                println!("cut after event {}: {error:#}", cut.end);
                tally.unmountable += 1;
                continue;
            }
        };
        if let Err(finding) = check(&fs.dir().join("log"), done, cut.end, &mut tally) {
            println!(
                "cut after event {}, flushed up to {}, seed {}: {finding:#}",
                cut.end, cut.boundary, cut.seed
            );
            tally.losses += 1;
        }
        fs.unmount()?;
    }
    Ok(tally)
}

fn apply(platter: &mut [u8], event: &Event) {
    if let Event::Write { at, bytes } = event {
        platter[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Applies some of the writes, some of them torn. Says whether anything is missing.
fn apply_some(platter: &mut [u8], events: &[Event], seed: u64) -> Result<bool> {
    let mut random = Random(seed);
    // None, all, or any: each write by itself.
    let mode = random.below(6);
    let mut is_partial = false;
    for event in events {
        let Event::Write { at, bytes } = event else {
            continue;
        };
        let is_kept = match mode {
            0 => false,
            1 => true,
            _ => random.below(2) == 0,
        };
        if mode > 1 && random.below(TORN_ONE_IN) == 0 {
            is_partial = true;
            for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                let from = at + number * SECTOR;
                let len = match random.below(2 * TORN_SECTOR_ONE_IN) {
                    0 => usize::try_from(random.below(sector.len() as u64))?,
                    drawn if drawn % 2 == 0 => 0,
                    _ => sector.len(),
                };
                platter[from..from + len].copy_from_slice(&sector[..len]);
            }
        } else if is_kept {
            apply(platter, event);
        } else {
            is_partial = true;
        }
    }
    Ok(is_partial)
}

/// Verifies, opens, compares and reads the log, then goes on with it.
fn check(dir: &Path, done: &Done, events: usize, tally: &mut Tally) -> Result<()> {
    let promised = done
        .units
        .iter()
        .take_while(|unit| unit.acknowledged.is_some_and(|at| at <= events));
    let promised: usize = promised.map(|unit| unit.batches.len()).sum();
    match Offline::open(Arc::new(RealVfs), dir) {
        Ok(offline) => {
            let verified = offline.verify(&mut |_| {})?;
            ensure!(verified.damaged.is_empty(), "{:?}", verified.damaged);
            ensure!(
                verified.can_start() || promised == 0,
                "verifying says that it can't start"
            );
        }
        Err(error) => ensure!(promised == 0, "{error}"),
    }
    let mut found = Ledger::default();
    let opened = Store::open_manual(
        Arc::new(RealVfs),
        dir,
        workload::config(),
        Timestamp(1),
        &mut found,
    );
    let (mut store, background) = opened.context("it doesn't open")?;
    let report = &store.report;
    ensure!(report.quarantined.is_empty(), "{report:?}");
    ensure!(report.damaged_snapshots == 0, "{report:?}");
    tally.torn_tails += u64::from(report.cut_bytes > 0);
    tally.snapshots += u64::from(report.snapshot.0 > 0);
    compare(done, promised, &found)?;
    tally.acknowledged += promised as u64;
    tally.kept += (found.len() - promised) as u64;
    read_all(&store, &found)?;
    background.run_all();
    let section = section_of(0, 0, 100);
    let appended = store.appender.append(&[batch(0, 0, &section)])?[0];
    background.run_all();
    ensure!(
        store.appender.settle()? >= appended.end,
        "the log doesn't go on"
    );
    Ok(())
}

/// What is there is what was appended, up to a unit's end, and all that was promised.
fn compare(done: &Done, promised: usize, found: &Ledger) -> Result<()> {
    let count = found.len();
    ensure!(
        count >= promised,
        "{count} of {promised} acknowledged batches are there"
    );
    let mut expected = Ledger::default();
    for unit in &done.units {
        if expected.len() >= count {
            break;
        }
        for (shard, known) in &unit.batches {
            expected.add(*shard, *known);
        }
    }
    ensure!(
        expected.shards == found.shards,
        "the {count} batches that are there are not what was appended"
    );
    Ok(())
}

/// Reads each queue through its index.
pub(crate) fn read_all(store: &Store, found: &Ledger) -> Result<()> {
    for shard in 0..SHARDS {
        let known = found.shards.get(&u32::try_from(shard)?);
        let known: Vec<&Known> = known.into_iter().flatten().collect();
        for queue in 1..=QUEUES {
            let queue = QueueId(10 * (shard + 1) + queue);
            let bounds = store.reader.bounds(queue);
            let mut from = bounds.start;
            for known in known.iter().filter(|known| known.queue == queue.0) {
                if Offset(known.base_offset) < bounds.start {
                    continue;
                }
                let mut entries = Vec::new();
                store.reader.entries(queue, from, 1, &mut entries)?;
                let Some(entry) = entries.first() else {
                    bail!("queue {queue} ends at {from}");
                };
                let stored = store.reader.read_entry(entry)?;
                ensure!(Known::of(&stored) == **known, "queue {queue} at {from}");
                let section = section_of(queue.0, known.base_offset, stored.section.len());
                ensure!(stored.section == section, "queue {queue} at {from}");
                from = entry.next_offset();
            }
            ensure!(from == bounds.next, "queue {queue} has more");
        }
    }
    Ok(())
}
