//! What the broker reads back from its log: catalogue records, group batches, snapshots.

use tidegate_broker::catalog::CatalogCommand;
use tidegate_broker::journal::{self, Change, JournalEntry, Parked};
use tidegate_broker::reply::Level;
use tidegate_broker::request::{BindingSpec, OnError, RetryPolicy};
use tidegate_broker::{
    Core, CursorId, Effects, GroupRef, PluginRef, RangeSet, Settings, SourceRef, ViewRef,
};
use tidegate_model::{
    Keep, LeaseId, Name, Offset, QueueId, ShardId, Timestamp, TopicChange, TopicRef, TopicSettings,
};

/// Records of one input; more add nothing but time.
const RECORDS_MAX: usize = 64;
const SHARDS: u32 = 2;
const CATALOG: u8 = 0;
const JOURNAL: u8 = 1;
const CATALOG_SNAPSHOT: u8 = 2;
const SHARD_SNAPSHOT: u8 = 3;
const KINDS: u8 = 4;

/// Takes an input as records (kind, shard, u16 length, bytes). What decodes is applied, as a restart
/// does; state that comes out of it survives a snapshot.
///
/// # Panics
/// If a record or a snapshot changes when it is written and read again.
pub fn run(input: &[u8]) {
    let mut core = new_core();
    let mut effects = Effects::default();
    let mut rest = input;
    for now in 0..RECORDS_MAX {
        let Some((&[kind, shard, low, high], after)) = rest.split_first_chunk() else {
            break;
        };
        let len = usize::from(u16::from_le_bytes([low, high])).min(after.len());
        let (bytes, after) = after.split_at(len);
        rest = after;
        let now = Timestamp(i64::try_from(now).expect("a small number"));
        let shard = ShardId(u32::from(shard) % SHARDS);
        match kind % KINDS {
            CATALOG => {
                let Ok(command) = CatalogCommand::decode(bytes) else {
                    continue;
                };
                assert_eq!(
                    CatalogCommand::decode(&command.encode()).as_ref(),
                    Ok(&command)
                );
                // A refusal means that it changed nothing, as at a restart.
                let _ = core.apply_catalog(now, &command, &mut effects);
            }
            JOURNAL => {
                let Ok(entries) = journal::decode(bytes) else {
                    continue;
                };
                let again: Vec<JournalEntry> = journal::encode(&entries)
                    .iter()
                    .flat_map(|batch| journal::decode(batch).expect("what was written is read"))
                    .collect();
                assert_eq!(again, entries);
                core.apply_journal(now, shard, &entries, &mut effects);
            }
            CATALOG_SNAPSHOT => {
                let mut other = new_core();
                if other.restore_catalog(bytes).is_ok() {
                    check_snapshots(&other);
                }
            }
            _ => {
                let mut other = new_core();
                if other.restore_shard(shard, bytes).is_ok() {
                    check_snapshots(&other);
                }
            }
        }
        effects.clear();
    }
    check_snapshots(&core);
}

fn new_core() -> Core {
    Core::new(Settings {
        shards: SHARDS,
        level: Level::Disk,
    })
}

fn check_snapshots(core: &Core) {
    let mut restored = new_core();
    let catalog = core.snapshot_catalog();
    restored
        .restore_catalog(&catalog)
        .expect("its own snapshot is read");
    assert_eq!(restored.snapshot_catalog(), catalog);
    for shard in (0..SHARDS).map(ShardId) {
        let state = core.snapshot_shard(shard);
        restored
            .restore_shard(shard, &state)
            .expect("its own snapshot is read");
        assert_eq!(restored.snapshot_shard(shard), state);
    }
}

/// Logs of small brokers, and some that are damaged.
///
/// # Panics
/// If a seed can't be built, which its test would show.
#[must_use]
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let topics = [create_topic()].concat();
    let cursor = [create_topic(), create_group(), open_cursor()].concat();
    let journal = [&cursor[..], &journaled()].concat();
    let kept = [create_topic(), update_topic()].concat();
    let view = [create_topic(), deploy(), create_view()].concat();
    let bound = [&cursor[..], &deploy(), &bind()].concat();
    let dead_letter = [&cursor[..], &open_dead_letter()].concat();
    let deleted = [&bound[..], &delete_topic()].concat();
    let mut core = new_core();
    let mut effects = Effects::default();
    for command in [topic_command(), group_command(), cursor_command()] {
        core.apply_catalog(Timestamp(1), &command, &mut effects)
            .expect("a seed is valid");
    }
    let snapshot = record(CATALOG_SNAPSHOT, &core.snapshot_catalog());
    let shard = record(SHARD_SNAPSHOT, &core.snapshot_shard(ShardId(0)));
    let cut = journal[..journal.len() - 3].to_vec();
    [
        ("topic", topics),
        ("cursor", cursor),
        ("journal", journal),
        ("kept", kept),
        ("view", view),
        ("bound", bound),
        ("dead-letter", dead_letter),
        ("deleted", deleted),
        ("catalog-snapshot", snapshot),
        ("shard-snapshot", shard),
        ("cut", cut),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .to_vec()
}

fn record(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("a seed is small");
    let [low, high] = len.to_le_bytes();
    [&[kind, 0, low, high], bytes].concat()
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a valid name")
}

fn topic() -> TopicRef {
    TopicRef {
        namespace: Name::default_namespace(),
        topic: name("flights"),
    }
}

fn group() -> GroupRef {
    GroupRef {
        namespace: Name::default_namespace(),
        group: name("billing"),
    }
}

fn binding() -> BindingSpec {
    BindingSpec {
        plugin: plugin(),
        config: Vec::new().into(),
        on_error: OnError::Skip,
    }
}

fn plugin() -> PluginRef {
    PluginRef {
        namespace: Name::default_namespace(),
        plugin: name("late"),
        version: name("1"),
    }
}

fn topic_command() -> CatalogCommand {
    CatalogCommand::CreateTopic {
        topic: topic(),
        queues: 2,
        settings: TopicSettings::default(),
    }
}

fn group_command() -> CatalogCommand {
    CatalogCommand::CreateGroup {
        group: group(),
        policy: RetryPolicy::default(),
    }
}

fn cursor_command() -> CatalogCommand {
    CatalogCommand::OpenCursor {
        group: group(),
        source: SourceRef::Topic(topic()),
        starts: vec![(QueueId(1), Offset(3))],
    }
}

fn create_topic() -> Vec<u8> {
    record(CATALOG, &topic_command().encode())
}

fn update_topic() -> Vec<u8> {
    let command = CatalogCommand::UpdateTopic {
        topic: topic(),
        change: TopicChange {
            retain_ms: Some(Keep::UpTo(60_000)),
            retain_bytes: Some(Keep::All),
            retain_consumed: Some(true),
            compact: Some(true),
            tombstone_ms: Some(Keep::UpTo(60_000)),
        },
    };
    record(CATALOG, &command.encode())
}

fn delete_topic() -> Vec<u8> {
    record(
        CATALOG,
        &CatalogCommand::DeleteTopic { topic: topic() }.encode(),
    )
}

fn create_group() -> Vec<u8> {
    record(CATALOG, &group_command().encode())
}

fn open_cursor() -> Vec<u8> {
    record(CATALOG, &cursor_command().encode())
}

fn deploy() -> Vec<u8> {
    let command = CatalogCommand::DeployPlugin {
        plugin: plugin(),
        digest: [7; 32],
        world: "filter".to_owned(),
        component: vec![0, 97, 115, 109].into(),
    };
    record(CATALOG, &command.encode())
}

fn create_view() -> Vec<u8> {
    let command = CatalogCommand::CreateView {
        view: ViewRef {
            topic: topic(),
            view: name("late"),
        },
        bindings: vec![binding()],
    };
    record(CATALOG, &command.encode())
}

fn bind() -> Vec<u8> {
    let command = CatalogCommand::Bind {
        group: group(),
        topic: topic(),
        binding: binding(),
    };
    record(CATALOG, &command.encode())
}

fn open_dead_letter() -> Vec<u8> {
    let command = CatalogCommand::OpenDeadLetter {
        group: group(),
        shard: ShardId(1),
    };
    record(CATALOG, &command.encode())
}

fn journaled() -> Vec<u8> {
    let entry = |change| JournalEntry {
        cursor: CursorId(1),
        queue: QueueId(1),
        change,
    };
    let mut offsets = RangeSet::one(0, 4);
    offsets.push(6, 7);
    let entries = [
        entry(Change::Set {
            at: Offset(0),
            lease_floor: LeaseId(1 << 40),
        }),
        entry(Change::Done { offsets }),
        entry(Change::Park {
            offsets: RangeSet::one(4, 6),
            parked: Parked {
                base_offset: Offset(4),
                span: 8,
                attempt: 2,
                due: Timestamp(1_373_241_600_000),
                record_bytes: 300,
                judge: false,
            },
        }),
    ];
    let batches = journal::encode(&entries);
    record(JOURNAL, &batches.concat())
}
