//! Pages that are lost under a map: the kernel took them back, and the disk can't give them again.
//!
//! Cutting a mapped file short does just that to a process: touching what was cut off is a SIGBUS.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_model::{Offset, QueueId, Seq, ShardId, Timestamp};
use tidegate_store::backup::FileId;
use tidegate_store::{
    Background, Expiry, IndexEntry, ReadError, Reader, RealVfs, Rule, Store, Trims, Vfs,
};

use crate::support::{Ledger, batch, check_reads, record, small};

const QUEUES: [QueueId; 2] = [QueueId(5), QueueId(6)];
const BATCHES: i64 = 300;
/// A page of a file.
const PAGE: u64 = 4096;

/// A store of some segments, all of which was read a moment ago.
struct Read {
    folder: tempfile::TempDir,
    store: Store,
    background: Background,
    ledger: Ledger,
}

impl Read {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::default();
        let (mut store, background) = Store::open_manual(
            Arc::new(RealVfs),
            folder.path(),
            small(),
            Timestamp(0),
            &mut ledger,
        )
        .unwrap();
        for number in 0..BATCHES {
            let section = [u8::try_from(number % 251).unwrap() + 1; 1000];
            let queue = if number % 3 == 0 { 5 } else { 6 };
            let unit = [batch(1, queue, 2, 10 * number, &section)];
            let appended = store.appender.append(&unit).unwrap()[0];
            ledger.apply(record(&unit[0], &appended));
            background.run_all();
        }
        store.appender.settle().unwrap();
        background.run_all();
        check_reads(&store.reader, &ledger);
        Self {
            folder,
            store,
            background,
            ledger,
        }
    }

    /// A file of the log by its ending, counted from the oldest.
    fn file(&self, ending: &str, at: usize) -> PathBuf {
        let files = fs::read_dir(self.folder.path().join("log")).unwrap();
        let mut files: Vec<_> = files
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|found| found == ending))
            .collect();
        files.sort();
        assert!(files.len() > 4, "{files:?}");
        files[at].clone()
    }

    fn entries(&self) -> Vec<IndexEntry> {
        let mut entries = Vec::new();
        for queue in QUEUES {
            let found = self
                .store
                .reader
                .entries(queue, Offset(0), 1000, &mut entries);
            found.unwrap();
        }
        entries
    }
}

fn cut(path: &Path, len: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

#[test]
fn a_batch_that_was_read_a_moment_ago_is_refused_and_its_neighbours_are_served() {
    let read = Read::new();
    let reader = &read.store.reader;
    let entries = read.entries();
    let mapped: Vec<_> = entries
        .iter()
        .map(|entry| reader.map_entry(entry).unwrap())
        .collect();
    let broken = RealVfs.broken_maps();
    let segment = read.file("seg", 1);
    let name = segment.file_stem().unwrap().to_str().unwrap();
    let base: u64 = name.parse().unwrap();
    let gone = base + 3 * PAGE..base + fs::metadata(&segment).unwrap().len();
    cut(&segment, 3 * PAGE);
    let (mut whole, mut refused) = (0, 0);
    for (entry, mapped) in entries.iter().zip(&mapped) {
        let end = mapped.header().end().0;
        let is_cut = gone.contains(&(end - 1));
        let found = [
            reader.read_entry(entry).err(),
            reader.map_entry(entry).err(),
            mapped.to_stored().err(),
        ];
        for error in found {
            let is_refused = matches!(error, Some(ReadError::Quarantined { .. }));
            assert_eq!(is_refused, is_cut, "{entry:?}: {error:?}");
            assert!(is_cut || error.is_none(), "{entry:?}: {error:?}");
        }
        whole += u32::from(!is_cut);
        refused += u32::from(is_cut);
    }
    assert!(whole > 200 && refused > 10, "{whole} and {refused}");
    assert!(RealVfs.broken_maps() > broken);
    assert!(read.store.reader.stats().quarantined > 0);
}

/// What may go of what is older than half of all.
fn expired(reader: &Reader) -> Trims {
    let rule = Rule {
        before: Some(Timestamp(5 * BATCHES)),
        ..Rule::default()
    };
    let mut pass = Expiry::new(Timestamp(10 * BATCHES), rule.before, 1);
    let mut trims = Trims::new();
    while !pass.is_done() {
        for (shard, rows) in reader.expire(&mut pass, &|_| Some(rule)).unwrap() {
            trims.entry(shard).or_default().extend(rows);
        }
    }
    trims
}

#[test]
fn an_index_that_loses_a_page_is_made_again() {
    let read = Read::new();
    let reader = &read.store.reader;
    let before = expired(reader);
    assert!(before[&ShardId(1)].iter().all(|row| row.start > Offset(0)));
    let entries = read.entries();
    let index = read.file("qix", 1);
    let bytes = fs::read(&index).unwrap();
    type LookUp<'a> = (&'a str, &'a dyn Fn());
    let lookups: [LookUp<'_>; 5] = [
        ("what expires", &|| assert_eq!(expired(reader), before)),
        ("entries", &|| assert_eq!(read.entries(), entries)),
        ("a time", &|| {
            for entry in &entries {
                let found = reader.offset_at(QUEUES[0], entry.append_time).unwrap();
                let of_the_queue = reader.offset_at(QUEUES[0], Timestamp(0)).unwrap();
                assert!(found >= of_the_queue);
            }
            check_reads(reader, &read.ledger);
        }),
        ("a number", &|| {
            for seq in 1..=BATCHES.cast_unsigned() {
                let found = reader.position_of(ShardId(1), Seq(seq)).unwrap();
                assert!(found.is_some(), "{seq}");
            }
        }),
        ("everything", &|| check_reads(reader, &read.ledger)),
    ];
    for (what, look_up) in lookups {
        let broken = RealVfs.broken_maps();
        cut(&index, 0);
        look_up();
        assert!(RealVfs.broken_maps() > broken, "{what}");
        read.background.run_all();
        assert_eq!(fs::read(&index).unwrap(), bytes, "{what}");
        // Opens the file that was just written.
        look_up();
    }
}

#[test]
fn a_backup_counts_what_a_broken_map_has_lost() {
    for is_gone in [false, true] {
        let read = Read::new();
        let held = read.store.reader.backup().unwrap();
        let segments = held
            .files()
            .filter(|file| matches!(file.id, FileId::Segment { .. }));
        let number = held
            .files()
            .position(|file| matches!(file.id, FileId::Segment { .. }))
            .unwrap()
            + 1;
        assert!(segments.count() > 4);
        let len = held.files().nth(number).unwrap().len;
        let whole = held.read(number, 0, len).unwrap();
        assert_eq!(whole.unreadable, 0);
        let path = read.file("seg", 1);
        let file = File::options().write(true).open(&path).unwrap();
        if is_gone {
            // As after a rewrite: the map is all that is left of it.
            fs::remove_file(&path).unwrap();
        }
        file.set_len(3 * PAGE).unwrap();
        let cut = usize::try_from(3 * PAGE).unwrap();
        for _ in 0..2 {
            let piece = held.read(number, 0, len).unwrap();
            assert_eq!(piece.bytes[..cut], whole.bytes[..cut], "{is_gone}");
            assert!(piece.bytes[cut..].iter().all(|byte| *byte == 0));
            assert_eq!(piece.unreadable, len - 3 * PAGE, "{is_gone}");
        }
    }
}

/// Says to a test that started itself what it is to do.
const ROLE: &str = "TIDEGATE_TEST_BUS_ERROR";
/// How a handler ends the process that was there before the store's.
const BEFORE: i32 = 42;
/// How a process ends that went on.
const WENT_ON: i32 = 43;

extern "C" fn before(_: i32) {
    // SAFETY: may be called in a handler (signal-safety(7)).
    #[expect(unsafe_code, reason = "there is no other way to end in a handler")]
    unsafe {
        libc::_exit(BEFORE)
    }
}

/// Sends itself a SIGBUS once a file was mapped, so that the store's handler is there.
fn bus_error(role: &str) -> ! {
    #[expect(unsafe_code, reason = "signals can't be set up in safe Rust")]
    // SAFETY: the handler only ends the process; nothing else of it listens to this signal.
    unsafe {
        match role {
            "handled" => libc::signal(libc::SIGBUS, before as *const () as usize),
            "ignored" => libc::signal(libc::SIGBUS, libc::SIG_IGN),
            "default" => libc::signal(libc::SIGBUS, libc::SIG_DFL),
            // Rust's own, which is there from the start.
            _ => 0,
        };
    }
    let read = Read::new();
    #[expect(unsafe_code, reason = "as above")]
    // SAFETY: a signal to this thread, which every process may send itself.
    unsafe {
        libc::raise(libc::SIGBUS);
    }
    drop(read);
    std::process::exit(WENT_ON)
}

#[test]
fn a_bus_error_that_somebody_sent_goes_to_who_handled_it_before() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    if let Ok(role) = std::env::var(ROLE) {
        bus_error(&role);
    }
    let ended = |role| {
        let name = "lost::a_bus_error_that_somebody_sent_goes_to_who_handled_it_before";
        let status = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(ROLE, role)
            .output()
            .unwrap()
            .status;
        (status.code(), status.signal())
    };
    assert_eq!(ended("handled"), (Some(BEFORE), None));
    assert_eq!(ended("ignored"), (Some(WENT_ON), None));
    assert_eq!(ended("default"), (None, Some(libc::SIGBUS)));
    assert_eq!(ended("rust"), (None, Some(libc::SIGBUS)));
}
