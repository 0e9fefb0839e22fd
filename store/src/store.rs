//! Opening a store.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tidegate_model::Timestamp;

use crate::appender::{Appender, Start};
use crate::batch::Kind;
use crate::commit::Commit;
use crate::config::StoreConfig;
use crate::error::OpenError;
use crate::files::{Files, Job};
use crate::folder::Folder;
use crate::header::BatchHeader;
use crate::index::Index;
use crate::keys::Keys;
use crate::reader::{Reader, Shared};
use crate::recovery::{Recovered, RecoveryReport, Replay, recover};
use crate::ring::Ring;
use crate::scrub::Scrubber;
use crate::segment::Preparer;
use crate::snapshot::Snapshots;
use crate::space::{Nudge, Reserve, Space, SpaceStats};
use crate::threads::{Background, Threads};
use crate::vfs::Vfs;

/// An open store: take it apart and give each part to whom it belongs.
pub struct Store {
    /// For the one thread that owns the log.
    pub appender: Appender,
    /// For everyone who reads.
    pub reader: Reader,
    /// What recovery found.
    pub report: RecoveryReport,
}

impl Store {
    /// Opens the store in `dir`, makes it if there is none, and rebuilds state through `replay`.
    ///
    /// On return the log takes appends; its threads do its writing until the appender is dropped.
    ///
    /// # Errors
    /// [`OpenError`]; the folder is as it was, but for what recovery may redo.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        config: StoreConfig,
        now: Timestamp,
        replay: &mut dyn Replay,
    ) -> Result<Self, OpenError> {
        let (mut store, background) = Self::open_manual(vfs, dir, config, now, replay)?;
        let threads =
            Threads::start(background).map_err(OpenError::io("starting the threads of", dir))?;
        store.appender.threads = Some(threads);
        Ok(store)
    }

    /// Like [`Store::open`], but the work of the threads is done by calling [`Background`].
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_manual(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        config: StoreConfig,
        now: Timestamp,
        replay: &mut dyn Replay,
    ) -> Result<(Self, Background), OpenError> {
        config.check()?;
        let (folder, lock) = Folder::open(vfs.as_ref(), dir)?;
        let reserve = Arc::new(Reserve::open(vfs.clone(), folder.clone()));
        let recovered = recover(&vfs, &folder, &reserve, &config, now, replay)?;
        let tail = begin_epoch(&recovered)?;
        let Recovered {
            segments,
            index,
            deltas,
            jobs,
            tails,
            active,
            spare,
            manifests,
            next_number,
            report,
        } = recovered;

        let ring = Ring::new(
            active.clone(),
            tail,
            config.ring_bytes,
            config.ring_bytes_max,
        );
        let commit = Arc::new(Commit::new(ring));
        let snapshots = Snapshots::new(folder.clone(), manifests, next_number);
        let keys = Keys::new(vfs.clone(), folder.clone(), segments.clone());
        let nudge = Arc::new(Nudge::default());
        let owner = commit.clone();
        let files = Arc::new(Files::new(
            vfs.clone(),
            folder.clone(),
            segments.clone(),
            reserve.clone(),
            nudge.clone(),
            snapshots,
            Box::new(move || owner.wake_owner()),
        ));
        for job in jobs {
            if let Job::Index(sealed) = &job {
                files.add_keys(keys.of(sealed.base()));
            }
            files.add(job);
        }
        let owner = commit.clone();
        let has_spare = spare.is_some();
        let preparer = Arc::new(Preparer::new(
            vfs.clone(),
            folder.clone(),
            reserve.clone(),
            spare,
            Box::new(move || owner.wake_owner()),
        ));
        let scrubber = Arc::new(Scrubber::new(
            vfs.clone(),
            commit.clone(),
            segments.clone(),
            config.scrub_bytes_per_s,
        ));
        let shared = Arc::new(Shared {
            scrubber: scrubber.clone(),
            compaction: Mutex::default(),
            commit: commit.clone(),
            segments: segments.clone(),
            files: files.clone(),
            index: Index {
                state: index.shared(),
                segments,
                files: files.clone(),
                commit: commit.clone(),
                vfs,
                folder,
            },
            keys,
            space: SpaceStats::default(),
            reserve,
            nudge: nudge.clone(),
            recovery_bytes_read: report.log_bytes_read,
        });
        let space = Arc::new(Space::new(shared.clone(), preparer.clone(), nudge));
        let appender = Appender::new(Start {
            shared: shared.clone(),
            preparer: preparer.clone(),
            config,
            active,
            tail,
            log_epoch: report.log_epoch,
            tails,
            deltas,
            checkpointed: report.snapshot,
            replayed: report.batches > 0,
            now,
            threads: None,
            lock,
        });
        if !has_spare {
            appender.want_next(u64::MAX);
        }
        tracing::info!(
            tail = %report.tail, snapshot = %report.snapshot, batches = report.batches,
            log_bytes_read = report.log_bytes_read, cut_bytes = report.cut_bytes,
            quarantined = report.quarantined.len(), log_epoch = report.log_epoch,
            "log opened"
        );
        let store = Self {
            appender,
            reader: Reader {
                shared: shared.clone(),
            },
            report,
        };
        let background = Background {
            commit,
            preparer,
            files,
            space,
            scrubber,
        };
        shared.nudge.nudge();
        Ok((store, background))
    }
}

/// Begins a log epoch durably, so that whatever was cut can never be taken for part of the log
/// again. Returns the position after its record.
fn begin_epoch(recovered: &Recovered) -> Result<u64, OpenError> {
    let active = &recovered.active;
    let tail = recovered.report.tail;
    let header = BatchHeader::local(Kind::Open, tail, tail, recovered.report.log_epoch);
    let path = active.segment.path();
    active
        .file
        .write_all_at(&header.encode(active.nonce), tail.0 - active.segment.base())
        .map_err(OpenError::io("writing", path))?;
    active.file.sync().map_err(OpenError::io("syncing", path))?;
    Ok(header.end().0)
}
