//! Retention: a thread that goes through the log, finds what may go, and has the owner log it.
//!
//! The owner answers small questions, a page at a time: which rules there are, how far groups have
//! come. Everything that touches the disk or takes long happens here. What is found is appended by
//! the owner as trims, and the thread goes on once they are durable.

mod rules;

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tidegate_broker::core::{ConsumedPage, RulesPage};
use tidegate_broker::id::CursorId;
use tidegate_model::{Offset, QueueId, ShardId, Timestamp, TopicId};
use tidegate_store::{Compaction, Expiry, Reader, Rule, TRIM_ROWS_MAX, TrimRow, Trims};

use crate::input::{Input, Inputs};
use crate::vital::vital;
use rules::{RuleTable, level};

/// Shortest time between two passes.
const PASS_MS_MIN: u64 = 250;
/// Longest time between two passes.
const PASS_MS_MAX: u64 = 30_000;
/// Time between two passes while a topic has a bound on its size, lets go what was consumed, or is
/// compacted by key.
const LOOK_MS: u64 = 2_000;
/// Of the shortest time for which a topic keeps messages, so much goes by between two passes: what
/// is due is at most a tenth late.
const PASSES_PER_RETENTION: u64 = 10;

/// What the thread asks of the owner. The owner never waits for the answer to be taken.
pub(crate) enum Ask {
    /// The version of the rules, and the time.
    Rules(SyncSender<(u64, Timestamp)>),
    /// The rules of the topics after this one.
    Page(Option<TopicId>, SyncSender<RulesPage>),
    /// How far the cursors after this one have come.
    Consumed(Option<CursorId>, SyncSender<ConsumedPage>),
    /// Log these trims. The sender is dropped when all of them are durable, or can't be.
    Trim(Trims, SyncSender<()>),
}

/// The way to the thread.
pub(crate) struct Retention {
    wake: SyncSender<()>,
    /// `None` where passes are made by hand.
    thread: Option<JoinHandle<()>>,
}

impl Retention {
    /// Starts the thread; its first pass begins at once, and finds also what a topic left behind
    /// that was removed just before a crash.
    pub(crate) fn start(reader: Reader, inputs: Inputs) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let thread = Builder::new()
            .name("retention".to_owned())
            .spawn(move || vital(|| run(&woken, Keeper::new(reader), &inputs)))?;
        let thread = Some(thread);
        Ok(Self { wake, thread })
    }

    /// No thread: whoever drives the node makes the passes of a [`Keeper`].
    pub(crate) fn by_hand() -> Self {
        let (wake, _) = sync_channel(1);
        Self { wake, thread: None }
    }

    /// The rules have changed.
    pub(crate) fn wake(&self) {
        // Full is woken already; gone has panicked, and its thread's message says why.
        let _ = self.wake.try_send(());
    }

    /// Waits for the thread's end. The owner must take no more inputs by now.
    pub(crate) fn stop(self) {
        drop(self.wake);
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread for retention had panicked");
        }
    }
}

fn run(woken: &Receiver<()>, mut keeper: Keeper, inputs: &Inputs) {
    let mut send = |ask| inputs.send(Input::Retention(ask));
    while let Ok(pause) = keeper.pass(&mut send) {
        match woken.recv_timeout(pause) {
            // Many changes at once are one change.
            Ok(()) => std::thread::sleep(Duration::from_millis(PASS_MS_MIN)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The owner is gone.
#[derive(Debug)]
pub(crate) struct Stopped;

/// The way of questions to the owner.
type Line<'a> = &'a mut dyn FnMut(Ask);

/// What retention knows from pass to pass.
pub(crate) struct Keeper {
    reader: Reader,
    version: u64,
    rules: RuleTable,
    /// The whole log was looked at for queues whose topics are gone.
    swept: bool,
}

impl Keeper {
    pub(crate) fn new(reader: Reader) -> Self {
        Self {
            reader,
            version: 0,
            rules: RuleTable::default(),
            swept: false,
        }
    }

    /// Looks through everything once. How long to wait for the next time.
    pub(crate) fn pass(&mut self, send: Line<'_>) -> Result<Duration, Stopped> {
        let (version, now) = ask(send, Ask::Rules)?;
        if version != self.version {
            self.load_rules(send)?;
            self.version = version;
        }
        self.reader.compact(Compaction {
            runs: self.rules.compacted().to_vec(),
            now,
        });
        self.expire_by_queue(send)?;
        self.expire_by_segment(now, send)?;
        Ok(self.pause())
    }

    fn load_rules(&mut self, send: Line<'_>) -> Result<(), Stopped> {
        let mut rules = RuleTable::default();
        let mut after = None;
        loop {
            let page = ask(send, |answer| Ask::Page(after, answer))?;
            after = page.next;
            rules.add(page);
            if after.is_none() {
                break;
            }
        }
        rules.finish();
        self.rules = rules;
        Ok(())
    }

    /// Size and consumption: asked of the queues of topics that have such rules.
    fn expire_by_queue(&mut self, send: Line<'_>) -> Result<(), Stopped> {
        if self.rules.looked_at().is_empty() {
            return Ok(());
        }
        let consumed = self.consumed(send)?;
        let mut found = Trims::new();
        for topic in self.rules.looked_at() {
            let max_bytes = topic.max_bytes.and_then(|max| {
                let mut sizes: Vec<u64> = topic
                    .queues
                    .iter()
                    .map(|queue| self.reader.bounds(*queue).bytes)
                    .collect();
                level(&mut sizes, max)
            });
            for queue in &topic.queues {
                let rule = Rule {
                    max_bytes,
                    consumed: match topic.consumed {
                        true => consumed.get(queue).copied(),
                        false => None,
                    },
                    ..Rule::default()
                };
                match self.reader.expire_queue(*queue, &rule) {
                    Ok(Some((shard, row))) => {
                        let rows = found.entry(shard).or_default();
                        rows.push(row);
                        if rows.len() >= TRIM_ROWS_MAX {
                            trim(std::mem::take(&mut found), send);
                        }
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%queue, %error, "what may go of a queue can't be told");
                    }
                }
            }
        }
        trim(found, send);
        Ok(())
    }

    /// Time, and queues whose topics are gone: found where they lie, segment by segment.
    fn expire_by_segment(&mut self, now: Timestamp, send: Line<'_>) -> Result<(), Stopped> {
        let before = self.rules.shortest_ms().map(|ms| age(now, ms));
        if self.swept && before.is_none() {
            return Ok(());
        }
        let latest = if self.swept { before } else { None };
        let mut pass = Expiry::new(now, latest, self.rules.fingerprint());
        while !pass.is_done() {
            let rule = |queue: QueueId| self.rules.rule(queue, now);
            match self.reader.expire(&mut pass, &rule) {
                Ok(trims) => trim(trims, send),
                Err(error) => {
                    tracing::warn!(%error, "what may go of a segment can't be told");
                }
            }
        }
        self.swept = true;
        Ok(())
    }

    /// The least of what the cursors on a queue are past, for topics whose messages go by that.
    fn consumed(&self, send: Line<'_>) -> Result<HashMap<QueueId, Offset>, Stopped> {
        let mut least = HashMap::new();
        let mut after = None;
        while self.rules.any_consumed() {
            let page = ask(send, |answer| Ask::Consumed(after, answer))?;
            for (queue, offset) in page.rows {
                least
                    .entry(queue)
                    .and_modify(|known: &mut Offset| *known = offset.min(*known))
                    .or_insert(offset);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(least)
    }

    fn pause(&self) -> Duration {
        // Compaction learns what time it is with each pass.
        let nothing = self.rules.looked_at().is_empty() && self.rules.compacted().is_empty();
        let looked_at = if nothing { PASS_MS_MAX } else { LOOK_MS };
        let timed = self
            .rules
            .shortest_ms()
            .map_or(PASS_MS_MAX, |ms| ms / PASSES_PER_RETENTION);
        Duration::from_millis(looked_at.min(timed).clamp(PASS_MS_MIN, PASS_MS_MAX))
    }
}

fn ask<T>(send: Line<'_>, question: impl FnOnce(SyncSender<T>) -> Ask) -> Result<T, Stopped> {
    let (answer, answered) = sync_channel(1);
    send(question(answer));
    answered.recv().map_err(|_| Stopped)
}

/// Has trims logged, and waits for that: what is found next is found behind them.
fn trim(mut trims: Trims, send: Line<'_>) {
    if trims.is_empty() {
        return;
    }
    for rows in trims.values_mut() {
        rows.sort_unstable_by_key(|row| row.queue);
    }
    let (done, finished) = sync_channel(1);
    send(Ask::Trim(trims, done));
    // Nothing is ever sent: the last sender goes when all is done.
    let _ = finished.recv();
}

/// The instant so many ms ago.
fn age(now: Timestamp, ms: u64) -> Timestamp {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp(now.0.saturating_sub(ms))
}

/// Rows that remove queues, by shard, as trims take them.
pub(crate) fn removals(queues: &[QueueId], shard_of: impl Fn(QueueId) -> ShardId) -> Trims {
    let mut trims = Trims::new();
    for queue in queues {
        let rows = trims.entry(shard_of(*queue)).or_default();
        rows.push(TrimRow::removal(*queue));
    }
    trims
}
