//! Blocks that can't be read, under a real file system and real maps: what a process that has the
//! log open makes of it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cuts::{DISK_BYTES, Places, make_file_system};
use crate::disk::Disk;
use crate::mounts::Mount;
use crate::reader::Met;
use crate::workload::Order;

const BLOCK: usize = 4096;
/// Of small files that were written anew the old blocks are still on the disk.
const COPIES_MAX: usize = 40;
const WORK_SECONDS: u64 = 2;
/// Whether the kernel takes a page back, and when, is its own affair: so often it is asked to.
const AT_ONCE_ROUNDS: u32 = 10;

/// A log on a mounted file system.
struct Rig {
    disk: Disk,
    image: PathBuf,
    dir: PathBuf,
    cgroup: Cgroup,
}

/// A control group whose memory can be emptied.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Result<Self> {
        let name = format!("tidegate-rig-{}", std::process::id());
        let dir = Path::new("/sys/fs/cgroup/memory").join(name);
        fs::create_dir(&dir).context("no memory controller (cgroup v1) is here")?;
        Ok(Self(dir))
    }

    fn add(&self, process: u32) -> Result<()> {
        Ok(fs::write(self.0.join("cgroup.procs"), process.to_string())?)
    }

    /// Takes all pages out of memory that can be read again, mapped ones as well.
    fn empty(&self) -> Result<()> {
        for _ in 0..10 {
            // Busy means that something stays, which the refused reads then show.
            let _ = fs::write(self.0.join("memory.force_empty"), "0");
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// The process that reads.
struct Reader {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Reader {
    fn start(rig: &Rig, log: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("read")
            .arg(log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        rig.cgroup.add(child.id())?;
        let stdin = child.stdin.take().context("it was asked for")?;
        let stdout = child.stdout.take().context("it was asked for")?;
        Ok(Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        })
    }

    /// Has it read everything: `later`, or `at once`, when what it read last counts as being in
    /// memory. An error says how the process died.
    fn read(&mut self, when: &str) -> Result<Met> {
        let mut line = String::new();
        let asked = writeln!(self.stdin, "{when}");
        let answered = asked.and_then(|()| self.stdout.read_line(&mut line));
        if !answered.is_ok_and(|bytes| bytes > 0) {
            let status = self.child.wait()?;
            match status.signal() {
                Some(signal) => bail!("the process died of signal {signal}"),
                None => bail!("the process ended: {status}"),
            }
        }
        Met::parse(&line)
    }

    fn stop(mut self) -> Result<()> {
        drop(self.stdin);
        let status = self.child.wait()?;
        ensure!(status.success(), "the process ended: {status}");
        Ok(())
    }
}

impl Rig {
    fn spoil(&self, places: &[usize]) {
        for place in places {
            self.disk.spoil(*place..place + BLOCK);
        }
    }

    fn mount(&self) -> Result<Mount> {
        Mount::ext4(&self.image, &self.dir)
    }

    /// Where on the disk a block of a file lies, and stale copies of it.
    fn places(&self, path: &Path, offset: usize) -> Result<Vec<usize>> {
        let bytes = fs::read(path)?;
        let last = bytes.len().saturating_sub(1);
        let from = offset.min(last) / BLOCK * BLOCK;
        let block = bytes.get(from..).context("the file ends before")?;
        let block = &block[..block.len().min(BLOCK)];
        let places = self.disk.find(block, BLOCK);
        ensure!(
            (1..=COPIES_MAX).contains(&places.len()),
            "a block is on the disk {} times",
            places.len()
        );
        Ok(places)
    }
}

/// Files of the log with an ending, oldest first.
fn files(log: &Path, folder: &str, ending: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(log.join(folder))? {
        let path = entry?.path();
        if path.extension().is_some_and(|name| name == ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A block of a file: which one, and where in it.
type Target = fn(&Path) -> Result<(PathBuf, usize)>;

fn of(log: &Path, folder: &str, ending: &str, from_end: usize) -> Result<PathBuf> {
    let files = files(log, folder, ending)?;
    let at = files.len().checked_sub(1 + from_end);
    let file = at.and_then(|at| files.get(at));
    file.cloned()
        .with_context(|| format!("too few .{ending} files"))
}

/// A full segment that is not among the newest.
fn sealed(log: &Path) -> Result<(PathBuf, usize)> {
    Ok((of(log, "log", "seg", 4)?, 300_000))
}

const CASES: [(&str, Target); 5] = [
    ("a block of a full segment", sealed),
    ("the header page of a full segment", |log| {
        Ok((of(log, "log", "seg", 4)?, 0))
    }),
    ("a queue index", |log| Ok((of(log, "log", "qix", 2)?, 0))),
    ("the newest manifest", |log| {
        Ok((of(log, "snapshot", "manifest", 0)?, 0))
    }),
    ("the newest part of a snapshot", |log| {
        Ok((of(log, "snapshot", "part", 0)?, usize::MAX))
    }),
];

pub(crate) fn run(seed: u64) -> Result<()> {
    let places = Places::new()?;
    let disk = Disk::new(DISK_BYTES);
    let plugged = disk.plug_in(&places.dir("fuse"))?;
    make_file_system(plugged.file())?;
    let rig = Rig {
        disk,
        image: plugged.file().to_owned(),
        dir: places.dir("fs"),
        cgroup: Cgroup::new()?,
    };
    let fs = rig.mount()?;
    let log = fs.dir().join("log");
    let order = Order {
        dir: log.clone(),
        counter: plugged.counter(),
        result: places.dir("done"),
        seed,
        seconds: WORK_SECONDS,
    };
    order.run()?;
    fs.unmount()?;

    let whole = looked_at(&rig, &log)?;
    println!("undamaged: {whole:?}");
    ensure!(
        whole.whole > 100 && whole.refused + whole.wrong == 0,
        "{whole:?}"
    );
    let mut failures = 0;
    let mut report = |what: &str, outcome: Result<String>| match outcome {
        Ok(met) => println!("{what}: {met}"),
        Err(error) => {
            failures += 1;
            println!("{what}: FAILED: {error:#}");
        }
    };
    for (what, target) in CASES {
        let outcome = unreadable_before(&rig, &log, target, whole);
        report(&format!("{what}, unreadable before the start"), outcome);
    }
    for (what, target) in &CASES[..3] {
        let outcome = under_a_map(&rig, &log, *target, whole, "later")
            .and_then(|(met, refused)| judge(met, refused, whole));
        report(&format!("{what}, unreadable under a map"), outcome);
    }
    // The header page is not asked for again so soon.
    for (what, target) in [CASES[0], CASES[2]] {
        let outcome = lost_under_a_map(&rig, &log, target, whole);
        report(&format!("{what}, read a moment ago and lost"), outcome);
    }
    ensure!(failures == 0, "{failures} cases failed");
    Ok(())
}

/// Reads everything once, from a cold cache.
fn looked_at(rig: &Rig, log: &Path) -> Result<Met> {
    let fs = rig.mount()?;
    let mut reader = Reader::start(rig, log)?;
    let met = reader.read("at once")?;
    reader.stop()?;
    fs.unmount()?;
    Ok(met)
}

fn unreadable_before(rig: &Rig, log: &Path, target: Target, whole: Met) -> Result<String> {
    let fs = rig.mount()?;
    let (path, offset) = target(log)?;
    let places = rig.places(&path, offset)?;
    // What is cached goes with the mount.
    fs.unmount()?;
    let fs = rig.mount()?;
    rig.spoil(&places);
    let before = rig.disk.refused();
    let read = || -> Result<Met> {
        let mut reader = Reader::start(rig, log)?;
        let met = reader.read("later")?;
        reader.stop()?;
        Ok(met)
    };
    let outcome = read();
    let refused = rig.disk.refused() - before;
    rig.disk.heal();
    fs.unmount()?;
    judge(outcome?, refused, whole)
}

/// What was read a moment ago is touched without asking the kernel, which may have taken it back.
fn lost_under_a_map(rig: &Rig, log: &Path, target: Target, whole: Met) -> Result<String> {
    let (mut lost, mut last) = (0, None);
    for _ in 0..AT_ONCE_ROUNDS {
        let (met, refused) = under_a_map(rig, log, target, whole, "at once")?;
        if refused > 0 {
            lost += 1;
            last = Some(judge(met, refused, whole)?);
        }
    }
    let last = last.context("the block was never asked for")?;
    Ok(format!("lost in {lost} of {AT_ONCE_ROUNDS} rounds, {last}"))
}

/// What is read `when`, after a block was lost, and how many reads of the disk failed by then.
fn under_a_map(
    rig: &Rig,
    log: &Path,
    target: Target,
    whole: Met,
    when: &str,
) -> Result<(Met, u64)> {
    let fs = rig.mount()?;
    let (path, offset) = target(log)?;
    let places = rig.places(&path, offset)?;
    fs.unmount()?;
    let fs = rig.mount()?;
    let before = rig.disk.refused();
    let read = || -> Result<Met> {
        let mut reader = Reader::start(rig, log)?;
        let met = reader.read("later")?;
        ensure!(met.whole == whole.whole, "all is well at first: {met:?}");
        rig.spoil(&places);
        rig.cgroup.empty()?;
        let met = reader.read(when)?;
        reader.stop()?;
        Ok(met)
    };
    let outcome = read();
    let refused = rig.disk.refused() - before;
    rig.disk.heal();
    fs.unmount()?;
    Ok((outcome?, refused))
}

/// Nothing wrong is served, and nothing is refused but what lies near the block.
fn judge(met: Met, refused: u64, whole: Met) -> Result<String> {
    ensure!(refused > 0, "the block was never asked for: {met:?}");
    ensure!(met.wrong == 0 && met.unlisted == 0, "{met:?}");
    // Without its header page a segment's index can't be trusted: whoever reads a queue that far is
    // refused, and this reader goes no further.
    ensure!(
        met.failed > 0 || met.whole + met.refused == whole.whole,
        "of {} batches: {met:?}",
        whole.whole
    );
    Ok(format!("alive, {refused} reads failed, {met:?}"))
}
