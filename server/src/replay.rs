//! Rebuilding the broker's state at start: from the snapshot, then from the log after it.

use std::sync::Arc;

use tidegate_broker::catalog::CatalogCommand;
use tidegate_broker::effects::Effects;
use tidegate_broker::{Appended, Core};
use tidegate_model::ShardId;
use tidegate_runtime::PluginDigest;
use tidegate_store::{Kind, LogPosition, ReplayError, StoredBatch};

use crate::components::Components;

/// Takes what the store reads back.
pub(crate) struct Replay<'a> {
    core: &'a mut Core,
    components: Arc<Components>,
    /// What live state machines would have done; nobody is there to be answered.
    effects: Effects,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(core: &'a mut Core, components: Arc<Components>) -> Self {
        Self {
            core,
            components,
            effects: Effects::new(),
        }
    }
}

impl tidegate_store::Replay for Replay<'_> {
    fn restore(&mut self, shard: ShardId, state: &[u8]) -> Result<(), ReplayError> {
        let failed = |error: tidegate_broker::SnapshotError| ReplayError(error.to_string());
        let own = if shard == ShardId(0) {
            let (catalog, own) = split(state)
                .ok_or_else(|| ReplayError("the state of shard 0 is cut short".to_owned()))?;
            self.core.restore_catalog(catalog).map_err(failed)?;
            own
        } else {
            state
        };
        self.core.restore_shard(shard, own).map_err(failed)
    }

    fn quarantined(&mut self, from: LogPosition, to: LogPosition) -> Result<(), ReplayError> {
        tracing::error!(%from, %to, "a range of the log is damaged; what lies around it is served");
        Ok(())
    }

    fn batch(&mut self, batch: &StoredBatch) -> Result<(), ReplayError> {
        let header = &batch.header;
        let at = header.append_time;
        let failed =
            |error: String| ReplayError(format!("batch {}-{}: {error}", header.shard, header.seq));
        match header.kind {
            Kind::Data => {
                let appended = Appended {
                    shard: header.shard,
                    queue: header.queue,
                    seq: header.seq,
                    base_offset: header.base_offset,
                    span: header.span,
                    count: header.count,
                    producer: header.producer,
                    epoch: header.producer_epoch,
                    sequence: header.sequence,
                    append_time: at,
                };
                self.core.apply_appended(at, &appended, &mut self.effects);
            }
            Kind::Group => {
                let entries = tidegate_broker::journal::decode(&batch.section)
                    .map_err(|error| failed(error.to_string()))?;
                self.core
                    .apply_journal(at, header.shard, &entries, &mut self.effects);
            }
            Kind::Catalog => {
                let command = CatalogCommand::decode(&batch.section)
                    .map_err(|error| failed(error.to_string()))?;
                self.keep_component(&command)
                    .map_err(|error| failed(error.to_string()))?;
                // One that was refused when live is refused again, and changes nothing.
                let _ = self.core.apply_catalog(at, &command, &mut self.effects);
            }
            // The store has raised the queues' starts by itself.
            Kind::Trim => {
                let rows = tidegate_store::trim::decode(&batch.section)
                    .map_err(|error| failed(error.to_string()))?;
                let starts: Vec<_> = rows.iter().map(|row| (row.queue, row.start)).collect();
                self.core.apply_trimmed(at, &starts, &mut self.effects);
            }
            kind => return Err(failed(format!("kind {kind:?} is of a later version"))),
        }
        self.effects.clear();
        Ok(())
    }
}

impl Replay<'_> {
    /// The log is where a component is safe; its file may have been lost with a crash.
    fn keep_component(&self, command: &CatalogCommand) -> std::io::Result<()> {
        match command {
            CatalogCommand::DeployPlugin {
                digest, component, ..
            } => self.components.keep(PluginDigest(*digest), component),
            _ => Ok(()),
        }
    }
}

/// Two states in one: the length of the first, then both.
pub(crate) fn join(first: &[u8], second: &[u8]) -> Vec<u8> {
    let len = u64::try_from(first.len()).expect("usize fits u64");
    [&len.to_le_bytes()[..], first, second].concat()
}

fn split(joined: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = joined.split_first_chunk::<8>()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_states_come_apart() {
        assert_eq!(split(&join(b"ab", b"")), Some((&b"ab"[..], &b""[..])));
        assert_eq!(split(&join(b"", b"c")), Some((&b""[..], &b"c"[..])));
        assert_eq!(split(b"short"), None);
        assert_eq!(split(&[9, 0, 0, 0, 0, 0, 0, 0, 1]), None);
    }
}
