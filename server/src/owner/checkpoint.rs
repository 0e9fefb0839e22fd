//! Snapshots of the broker's state, so that a restart reads little.

use tidegate_model::{ShardId, Timestamp};

use super::Owner;

impl Owner {
    pub(super) fn checkpoint_if_due(&mut self, now: Timestamp) {
        if self.appender.checkpoint_due(now) {
            self.checkpoint_now();
        }
    }

    /// Hands the state of the shards that changed to the store, which writes it in the background.
    /// The state is that of the durable position: all up to it was applied, nothing beyond.
    pub(super) fn checkpoint_now(&mut self) {
        let changed: Vec<ShardId> = (0..self.shards)
            .map(ShardId)
            .filter(|s| self.state.dirty[s.0 as usize])
            .collect();
        let states = changed
            .iter()
            .map(|shard| (*shard, self.state_of(*shard)))
            .collect();
        let now = self.clock.now();
        if self.appender.checkpoint(now, states) {
            self.state.dirty.fill(false);
        }
    }

    /// Shard 0 holds the catalogue besides its own queues and cursors.
    fn state_of(&self, shard: ShardId) -> Vec<u8> {
        let own = self.core.snapshot_shard(shard);
        if shard == ShardId(0) {
            crate::replay::join(&self.core.snapshot_catalog(), &own)
        } else {
            own
        }
    }
}
