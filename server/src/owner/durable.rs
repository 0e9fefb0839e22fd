//! What happens once the log has it.

use std::sync::mpsc::SyncSender;

use tidegate_broker::catalog::CatalogCommand;
use tidegate_broker::id::RequestToken;
use tidegate_broker::journal::JournalEntry;
use tidegate_broker::{Appended, Refusal};
use tidegate_model::{ShardId, Timestamp, code};
use tidegate_store::{AppendError, Batch, Kind, TrimRow};

use super::Owner;
use super::admin::Then;
use super::publish::{PublishKey, Publisher, TERM};

/// Journal entries of one unit: bounds what is encoded at a time.
const JOURNAL_ENTRIES_MAX: usize = 8_192;

/// Something appended, and what follows when it is durable.
pub(super) enum Pending {
    Publish {
        appended: Appended,
        publisher: Publisher,
        key: PublishKey,
        bytes: usize,
    },
    Catalog {
        at: Timestamp,
        command: Box<CatalogCommand>,
        then: Then,
    },
    Journal {
        shard: ShardId,
        entries: Vec<(JournalEntry, Option<RequestToken>)>,
    },
    DeadLetter {
        copies: Option<Appended>,
        /// Messages without a copy because they can't be read.
        damaged: u64,
        shard: ShardId,
        entry: JournalEntry,
    },
    Trim {
        shard: ShardId,
        rows: Vec<TrimRow>,
        /// Dropped with it: whoever waits for it sees that.
        done: Option<SyncSender<()>>,
    },
}

impl Owner {
    /// Carries out everything that has become durable, in the order in which it was appended.
    pub(super) fn complete_durable(&mut self) {
        let durable = match self.appender.settle() {
            Ok(durable) => durable,
            Err(fenced) => {
                let durable = fenced.durable;
                self.fenced(&fenced);
                self.complete_until(durable);
                let refusal = Refusal::new(code::LOG_FENCED, fenced.to_string());
                return self.lose_pending(&refusal);
            }
        };
        self.complete_until(durable);
    }

    fn complete_until(&mut self, durable: tidegate_store::LogPosition) {
        let now = self.clock.now();
        while self
            .state
            .pending
            .front()
            .is_some_and(|(end, _)| *end <= durable)
        {
            let (_, pending) = self.state.pending.pop_front().expect("just seen");
            self.complete(now, pending);
        }
    }

    fn complete(&mut self, now: Timestamp, pending: Pending) {
        match pending {
            Pending::Publish {
                appended,
                publisher,
                key,
                bytes,
            } => {
                self.mark_dirty(appended.shard);
                self.core
                    .apply_appended(now, &appended, &mut self.state.effects);
                self.published(publisher, key, &appended, bytes);
            }
            Pending::Catalog { at, command, then } => {
                self.mark_dirty(ShardId(0));
                // Cursors of the command live in other shards.
                self.state.dirty.fill(true);
                let at_stake = self.component_at_stake(&command);
                let removed = self.queues_of_removed(&command);
                let applied = self
                    .core
                    .apply_catalog(at, &command, &mut self.state.effects);
                if applied.is_ok() {
                    self.remove_queues(&removed);
                }
                self.catalog_changed(&command, at_stake);
                self.then(then, applied);
            }
            Pending::Journal { shard, entries } => {
                self.mark_dirty(shard);
                let (entries, tokens): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
                self.core
                    .apply_journal(now, shard, &entries, &mut self.state.effects);
                let tokens: Vec<RequestToken> = tokens.into_iter().flatten().collect();
                self.core.confirm(&tokens, &mut self.state.effects);
            }
            Pending::DeadLetter {
                copies,
                damaged,
                shard,
                entry,
            } => {
                self.mark_dirty(shard);
                self.metrics.damaged_messages.inc_by(damaged);
                if let Some(copies) = copies {
                    self.metrics.dead_lettered.inc_by(u64::from(copies.count));
                    self.core
                        .apply_appended(now, &copies, &mut self.state.effects);
                }
                self.core
                    .apply_journal(now, shard, &[entry], &mut self.state.effects);
            }
            Pending::Trim { shard, rows, done } => {
                self.trimmed(shard, &rows);
                drop(done);
            }
        }
    }

    /// The log failed: nobody who waits can be told that it is stored.
    fn lose_pending(&mut self, refusal: &Refusal) {
        for (_, pending) in std::mem::take(&mut self.state.pending) {
            match pending {
                Pending::Publish { publisher, key, .. } => {
                    self.publish_lost(publisher, key, refusal);
                }
                Pending::Catalog { then, .. } => self.then(then, Err(refusal.clone())),
                Pending::Journal { entries, .. } => {
                    for token in entries.into_iter().filter_map(|(_, token)| token) {
                        self.settle_lost(token, refusal);
                    }
                }
                Pending::DeadLetter { .. } | Pending::Trim { .. } => {}
            }
        }
    }

    pub(super) fn mark_dirty(&mut self, shard: ShardId) {
        if let Some(dirty) = self.state.dirty.get_mut(shard.0 as usize) {
            *dirty = true;
        }
    }

    /// Appends the turn's journal entries: one unit per shard shares the sync with everything else.
    pub(super) fn append_journal(&mut self) {
        for (shard, mut waiting) in std::mem::take(&mut self.state.journal) {
            while !waiting.is_empty() {
                let rest = waiting.split_off(waiting.len().min(JOURNAL_ENTRIES_MAX));
                if let Err(error) = self.append_entries(shard, &waiting) {
                    match error {
                        AppendError::Fenced(fenced) => {
                            self.fenced(&fenced);
                            let refusal = Refusal::new(code::LOG_FENCED, fenced.to_string());
                            for token in waiting.iter().chain(&rest).filter_map(|(_, t)| *t) {
                                self.settle_lost(token, &refusal);
                            }
                        }
                        error => {
                            // Full ring or full disk: leases stay as they are until there is room.
                            if matches!(error, AppendError::NoSpace) {
                                self.shared.set_disk_full(true);
                            }
                            waiting.extend(rest);
                            self.state.journal.insert(shard, waiting);
                        }
                    }
                    break;
                }
                let appended = std::mem::replace(&mut waiting, rest);
                let end = self.appender.tail();
                self.state.pending.push_back((
                    end,
                    Pending::Journal {
                        shard,
                        entries: appended,
                    },
                ));
            }
        }
    }

    fn append_entries(
        &mut self,
        shard: ShardId,
        entries: &[(JournalEntry, Option<RequestToken>)],
    ) -> Result<(), AppendError> {
        let now = self.clock.now();
        let sections = tidegate_broker::journal::encode(entries.iter().map(|(entry, _)| entry));
        let batches: Vec<Batch<'_>> = sections
            .iter()
            .map(|section| Batch::control(Kind::Group, shard, TERM, now, section))
            .collect();
        self.appender.append(&batches).map(drop)
    }
}
