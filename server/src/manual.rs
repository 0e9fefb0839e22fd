//! A node without threads and sockets, whose clock stands until it is told: whoever holds it decides
//! when what happens, and on which disk. For simulations. Guests alone are told the system's time.
//!
//! All code but that of threads and listeners is a server's: the [`Service`] of its front ends, the
//! owner's turns, the workers' jobs, the passes of retention, and the start.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use tidegate_model::Timestamp;
use tidegate_session::Service;
use tidegate_store::{Background, RecoveryReport, Store, StoreConfig, Vfs};

use crate::backups::Backups;
use crate::clock::Clock;
use crate::components::Components;
use crate::config::{Config, SLOW_DISK};
use crate::error::StartError;
use crate::identity::SECRET_BYTES;
use crate::input::Inputs;
use crate::metrics::Metrics;
use crate::node::{Front, Node};
use crate::offline::{COMPONENT_FOLDER, LOG_FOLDER};
use crate::owner::{Owner, State};
use crate::receipt::Receipts;
use crate::replay::Replay;
use crate::retention::{Ask, Keeper, Retention};
use crate::server::{new_core, open_components, shared_of};
use crate::token::RootToken;
use crate::worker::{Hand, Slow, Tools, Workers};

/// Turns within which a log that has room takes what waits.
const TURNS_MAX: u32 = 1_000;

/// What a [`ManualNode`] has beside its disk, and keeps over its restarts: the folder of plugin
/// components, which lies on the real disk, and the key of receipts.
#[derive(Clone)]
pub struct Belongings {
    folder: PathBuf,
    components: Arc<Components>,
    receipts: Arc<Receipts>,
}

impl Belongings {
    /// Opens the plugin host in the data folder of `config`, which must exist. Nothing else of
    /// `config` is looked at.
    ///
    /// # Errors
    /// [`StartError::Plugins`], [`StartError::Folder`].
    pub fn open(config: &Config) -> Result<Self, StartError> {
        Ok(Self {
            folder: config.data.join(COMPONENT_FOLDER),
            components: open_components(config)?,
            receipts: Arc::new(Receipts::new(&[7; SECRET_BYTES])),
        })
    }
}

/// A node that does nothing by itself. Dropped, it is as if its process had been killed.
pub struct ManualNode {
    owner: Owner,
    hand: Hand,
    keeper: Keeper,
    background: Background,
    service: Arc<dyn Service>,
    node: Arc<Node>,
    recovery: RecoveryReport,
}

impl ManualNode {
    /// Opens the log of the data folder `data` on `vfs` and recovers, at the time `now` or that of
    /// the last append, whichever is later.
    ///
    /// # Errors
    /// [`StartError::Store`].
    pub fn open(
        vfs: Arc<dyn Vfs>,
        data: &Path,
        belongings: &Belongings,
        config: StoreConfig,
        now: Timestamp,
    ) -> Result<Self, StartError> {
        let Belongings {
            folder,
            components,
            receipts,
        } = belongings.clone();
        let shards = config.shards;
        let mut core = new_core(shards);
        let mut replay = Replay::new(&mut core, Arc::clone(&components));
        let dir = data.join(LOG_FOLDER);
        let (store, background) = Store::open_manual(vfs, &dir, config, now, &mut replay)?;
        let Store {
            appender,
            reader,
            report,
        } = store;
        core.begin_epoch(report.log_epoch);
        appender.flush_by_hand();
        let (sender, received) = channel();
        let inputs = Inputs::new(sender);
        let metrics = Arc::new(Metrics::new());
        let clock = Clock::standing(now, report.newest_append, Arc::clone(&metrics));
        let shared = Arc::new(shared_of(&core));
        let (workers, hand) = Workers::by_hand(Tools {
            reader: reader.clone(),
            components: Arc::clone(&components),
            receipts: Arc::clone(&receipts),
            metrics: Arc::clone(&metrics),
            inputs: inputs.clone(),
            clock: clock.clone(),
            slow: Slow::default(),
        });
        let node = Arc::new(Node {
            inputs,
            shared: Arc::clone(&shared),
            metrics: Arc::clone(&metrics),
            components: Arc::clone(&components),
            uploads: Arc::default(),
            reader: reader.clone(),
            token: RootToken::none(),
            shards,
            ready_at: Instant::now(),
            slow_disk: SLOW_DISK,
            clock: clock.clone(),
            backups: Backups::new(reader.clone(), folder, String::new()),
        });
        let owner = Owner {
            core,
            appender,
            reader: reader.clone(),
            inputs: received,
            credits: node.inputs.credits(),
            workers,
            retention: Retention::by_hand(),
            components,
            receipts,
            shared,
            metrics,
            clock,
            shards,
            log_epoch: report.log_epoch,
            state: State::new(shards),
        };
        Ok(Self {
            owner,
            hand,
            keeper: Keeper::new(reader),
            background,
            service: Arc::new(Front(Arc::clone(&node))),
            node,
            recovery: report,
        })
    }

    /// The node as front ends see it. What is asked of it is taken up by [`ManualNode::step`];
    /// deploying a plugin is the one request that needs an async runtime.
    #[must_use]
    pub fn service(&self) -> &Arc<dyn Service> {
        &self.service
    }

    /// What recovery found and read.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// One turn of the owner at this time, or at the latest seen: it takes what has arrived,
    /// appends, and answers what has become durable. It writes nothing to the disk: whether an owner
    /// syncs by itself depends on how quick the disk is, and so is left out here.
    pub fn step(&mut self, now: Timestamp) {
        self.owner.clock.tell(now);
        self.owner.step();
    }

    /// Like [`ManualNode::step`], but the node has to make its time of two clocks of its machine, as a
    /// server does: wall time, which may have been set, and the time since boot.
    pub fn step_by_machine(&mut self, wall: Timestamp, since_boot: Duration) {
        self.owner.clock.tell_machine(wall, since_boot);
        self.owner.step();
    }

    /// What `/metrics` shows.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        self.node.metrics_text()
    }

    /// Does the next job of the worker: looks into a queue or sends what was granted. `false` if
    /// there is none.
    pub fn work(&mut self) -> bool {
        self.hand.work()
    }

    /// The store's work, all that there is to do with the disk.
    #[must_use]
    pub fn background(&self) -> &Background {
        &self.background
    }

    /// A pass of retention over all queues, at the time of the latest [`ManualNode::step`]. What it
    /// finds is logged and made durable meanwhile.
    ///
    /// # Panics
    /// If the log has no room for it.
    pub fn retain(&mut self) {
        let (owner, background) = (&mut self.owner, &self.background);
        let mut send = |ask| {
            let waits = matches!(ask, Ask::Trim(..));
            owner.retention_asks(ask);
            let mut turns = 0;
            while waits && owner.is_waiting() {
                assert!(
                    turns < TURNS_MAX,
                    "the log takes no trim: is the disk full?"
                );
                turns += 1;
                // Where a flush fails the log is fenced, and all that waits is given up.
                owner.step();
                let _ = background.flush();
                let _ = background.prepare();
                let _ = background.write_file();
            }
        };
        let passed = self.keeper.pass(&mut send);
        passed.expect("the owner is here, so it answers");
    }
}
