//! Random operations against a list in memory, over the simulated and the real file system.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_model::Timestamp;
use tidegate_store::sim::SimVfs;
use tidegate_store::{AppendError, LogPosition, RealVfs, Store, Vfs};

use crate::support::{Ledger, batch, check_reads, dir, record, small};

#[derive(Clone, Debug)]
enum Op {
    Append { shard: u32, sizes: Vec<usize> },
    Settle,
    Checkpoint,
    Tick,
    Read,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..3_u32, vec(0..6000_usize, 1..4))
            .prop_map(|(shard, sizes)| Op::Append { shard, sizes }),
        3 => Just(Op::Settle),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Tick),
        1 => Just(Op::Read),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn simulated_disk(ops in vec(op(), 1..80)) {
        run(Arc::new(SimVfs::new(1)), dir(), &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn real_disk(ops in vec(op(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        run(Arc::new(RealVfs), folder.path(), &ops);
    }
}

struct Opened {
    store: Store,
    wakes: mpsc::Receiver<()>,
}

fn open(vfs: &Arc<dyn Vfs>, dir: &Path, model: &Ledger) -> Opened {
    let mut recovered = Ledger::default();
    let store = Store::open(vfs.clone(), dir, small(), Timestamp(0), &mut recovered).unwrap();
    assert_eq!(recovered.shards, model.shards);
    check_reads(&store.reader, model);
    let (wake, wakes) = mpsc::sync_channel(1);
    store.appender.on_durable(Arc::new(move |durable| {
        durable.unwrap();
        let _ = wake.try_send(());
    }));
    Opened { store, wakes }
}

impl Opened {
    fn wait(&self) {
        // A wake may come just before the wait begins: it is kept, the channel holds one.
        self.wakes.recv_timeout(Duration::from_secs(30)).unwrap();
    }

    fn settle(&mut self, to: LogPosition) {
        while self.store.appender.settle().unwrap() < to {
            self.wait();
        }
    }
}

fn run(vfs: Arc<dyn Vfs>, dir: &Path, ops: &[Op]) {
    let mut model = Ledger::default();
    let mut open_store = open(&vfs, dir, &model);
    for (time, op) in (1_i64..).zip(ops) {
        match op {
            Op::Append { shard, sizes } => {
                let section = vec![time.to_le_bytes()[0]; 6000];
                let unit = sizes
                    .iter()
                    .map(|len| {
                        let queue = (*len as u64 % 4) * 3 + u64::from(*shard);
                        let span = if queue == 0 { 0 } else { 1 + (len % 7) as u16 };
                        batch(*shard, queue, span, time, &section[..*len])
                    })
                    .collect::<Vec<_>>();
                loop {
                    match open_store.store.appender.append(&unit) {
                        Ok(appended) => {
                            for (batch, at) in unit.iter().zip(appended) {
                                model.apply(record(batch, at));
                            }
                            break;
                        }
                        Err(AppendError::Full) => open_store.wait(),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            Op::Settle => {
                let tail = open_store.store.appender.tail();
                open_store.settle(tail);
            }
            Op::Checkpoint => {
                let tail = open_store.store.appender.tail();
                open_store.settle(tail);
                // Refused while one is being written, which is fine.
                open_store
                    .store
                    .appender
                    .checkpoint(Timestamp(time), model.states());
            }
            Op::Tick => open_store.store.appender.tick(Timestamp(time * 50)),
            Op::Read => {
                let tail = open_store.store.appender.tail();
                open_store.settle(tail);
                check_reads(&open_store.store.reader, &model);
            }
            Op::Reopen => {
                drop(open_store);
                open_store = open(&vfs, dir, &model);
            }
        }
    }
    drop(open_store);
    open(&vfs, dir, &model);
}
