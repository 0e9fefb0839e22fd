//! A host for all tests, so that each runs beside the others on one engine, and batches to judge.

use std::fs;
use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

use tempfile::TempDir;
use tidegate_model::section::Codec;
use tidegate_model::{Message, Offset, Section, SectionBuilder, Timestamp};
use tidegate_runtime::{
    CallError, CompilerCommand, Filter, GuestBatch, HostConfig, Limits, PluginDigest, PluginError,
    PluginHost, Verdicts,
};

use crate::guest::Guest;

pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Little of everything, so that hostile guests end soon.
pub(crate) const TIGHT: Limits = Limits {
    fuel_base: 5_000_000,
    fuel_per_record: 10_000,
    fuel_per_kib: 10_000,
    fuel_start: 5_000_000,
    call_cpu_ms: 10_000,
    memory_bytes: 8 * 1024 * 1024,
};

pub(crate) fn compiler() -> CompilerCommand {
    CompilerCommand {
        program: env!("CARGO_BIN_EXE_tidegate-compile-child").into(),
        args: vec![],
    }
}

pub(crate) fn new_host(dir: &TempDir) -> PluginHost {
    PluginHost::new(HostConfig {
        compiler: compiler(),
        cache_dir: dir.path().join("compiled"),
        cache_key: [7; 32],
    })
    .unwrap()
}

static MEASURING: RwLock<()> = RwLock::new(());

/// The host that tests share, with a good guest loaded to see that it still runs.
pub(crate) struct Shared {
    pub(crate) host: &'static PluginHost,
    canary: &'static Mutex<Filter>,
    _others: RwLockReadGuard<'static, ()>,
}

struct Process {
    host: PluginHost,
    canary: Mutex<Filter>,
}

fn process() -> &'static Process {
    static PROCESS: OnceLock<Process> = OnceLock::new();
    PROCESS.get_or_init(|| {
        let dir = TempDir::new().unwrap();
        let host = new_host(&dir);
        let good = host.install(&Guest::keep_tagged().bytes()).unwrap();
        let canary = host.bind(good.digest, b"", Limits::default()).unwrap();
        Process {
            host,
            canary: Mutex::new(canary),
        }
    })
}

pub(crate) fn shared() -> Shared {
    let process = process();
    Shared {
        host: &process.host,
        canary: &process.canary,
        _others: MEASURING.read().unwrap_or_else(PoisonError::into_inner),
    }
}

/// Keeps other tests from running while memory is measured.
pub(crate) fn alone() -> (&'static PluginHost, RwLockWriteGuard<'static, ()>) {
    let host = &process().host;
    (
        host,
        MEASURING.write().unwrap_or_else(PoisonError::into_inner),
    )
}

impl Shared {
    pub(crate) fn bind(&self, guest: &Guest) -> Result<Filter, PluginError> {
        self.bind_with(guest, b"", TIGHT)
    }

    pub(crate) fn bind_with(
        &self,
        guest: &Guest,
        config: &[u8],
        limits: Limits,
    ) -> Result<Filter, PluginError> {
        let info = self.host.install(&guest.bytes())?;
        self.host.bind(info.digest, config, limits)
    }

    /// The guest that was there before still judges, and a fresh instance of it does too.
    pub(crate) fn canary(&self) {
        let mut canary: MutexGuard<'_, Filter> =
            self.canary.lock().unwrap_or_else(PoisonError::into_inner);
        assert_judges(&mut canary);
        let digest: PluginDigest = canary.info().digest;
        assert_judges(&mut self.host.bind(digest, b"", Limits::default()).unwrap());
    }
}

fn assert_judges(filter: &mut Filter) {
    let batch = Batch::tagged(&["keep", "drop", "keep"]);
    assert_eq!(check_one(filter, &batch).unwrap(), [true, false, true]);
}

/// A stored batch.
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    count: usize,
    base: Offset,
}

impl Batch {
    pub(crate) fn new(messages: &[Message]) -> Self {
        let mut builder = SectionBuilder::new();
        for message in messages {
            builder.push(message).unwrap();
        }
        Self {
            bytes: builder.finish().unwrap(),
            count: messages.len(),
            base: Offset(0),
        }
    }

    pub(crate) fn tagged(tags: &[&str]) -> Self {
        let messages: Vec<_> = tags
            .iter()
            .map(|tag| Message::new(*b"body").tag(*tag))
            .collect();
        Self::new(&messages)
    }

    /// `count` records with the tag `keep` where `keep` says so, and bodies of `len` bytes.
    pub(crate) fn pattern(count: usize, len: usize, keep: impl Fn(usize) -> bool) -> Self {
        let messages: Vec<_> = (0..count)
            .map(|n| {
                let tag = if keep(n) { "keep" } else { "drop" };
                Message::new(vec![n.to_le_bytes()[0]; len]).tag(tag)
            })
            .collect();
        Self::new(&messages)
    }

    pub(crate) fn at(mut self, base: u64) -> Self {
        self.base = Offset(base);
        self
    }

    pub(crate) fn section(&self) -> Section<'_> {
        let span = u32::try_from(self.count).unwrap();
        Section::parse(&self.bytes, self.count, span, Codec::None).unwrap()
    }

    pub(crate) fn guest(&self) -> GuestBatch<'_> {
        GuestBatch::new(self.section(), self.base, Timestamp(1000))
    }
}

pub(crate) fn check_one(filter: &mut Filter, batch: &Batch) -> Result<Vec<bool>, CallError> {
    let batches = [batch.guest()];
    let mut verdicts = Verdicts::new(&batches);
    filter.check(NOW, &batches, &mut verdicts)?;
    Ok(verdicts.batch(0).collect())
}

/// Private and shared anonymous memory of this process in bytes: what a limit on memory counts.
pub(crate) fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kib = |field: &str| -> usize {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (kib("RssAnon:") + kib("RssShmem:")) * 1024
}
