//! Threads that read the log and run guests, so that the owner never waits for either.
//!
//! Jobs of one queue go to one worker, in order: what is fetched first is judged and sent first.

mod fetch;
mod find;
mod judge;
mod send;

#[cfg(test)]
mod parts;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

use tidegate_broker::Refusal;
use tidegate_broker::catalog::Binding;
use tidegate_broker::effects::Fetch;
use tidegate_broker::id::WaiterId;
use tidegate_broker::reply::Reply;
use tidegate_model::{Code, Offset, QueueId, code};
use tidegate_session::{DeliverySink, SubscriptionId};
use tidegate_store::Reader;

use crate::clock::Clock;
use crate::components::Components;
use crate::input::{Answer, Inputs};
use crate::metrics::Metrics;
use crate::receipt::Receipts;
pub(crate) use find::{FindJob, Wanted};
use judge::Judge;
use send::Outbox;

/// Jobs that may wait for one worker; the owner waits when it is full, and workers never wait for
/// the owner.
const JOBS_WAITING_MAX: usize = 16_384;

/// Searches that may wait; further ones are refused. They have a thread of their own, since one of
/// them may read many segments, and deliveries don't wait for that.
const SEARCHES_WAITING_MAX: usize = 64;

/// Lease runs gathered before they are handed to their connections.
const OUTBOX_RUNS_MAX: usize = 256;

/// What a worker is asked to do.
pub(crate) enum Job {
    /// Look into a queue for the broker.
    Fetch(Fetch),
    /// Read what was granted and send it.
    Send(Grant),
    /// Read stored messages by offset, for nobody's group.
    Read(ReadJob),
    /// Forget the filters of bindings that are gone: these are all that are left.
    Retain(Arc<[Binding]>),
}

/// A grant and where it goes.
pub(crate) struct Grant {
    pub(crate) grant: tidegate_broker::effects::Grant,
    pub(crate) to: Target,
}

/// Where granted messages go.
pub(crate) enum Target {
    Subscription(SubscriptionId, Arc<dyn DeliverySink>),
    /// Back to the owner, which gathers them.
    Waiter(WaiterId),
}

/// A raw read of one queue.
pub(crate) struct ReadJob {
    pub(crate) queue: QueueId,
    pub(crate) bindings: Arc<[Binding]>,
    pub(crate) from: Offset,
    pub(crate) max_messages: u32,
    pub(crate) max_bytes: u32,
    pub(crate) over_gaps: bool,
    pub(crate) answer: Answer<Reply>,
}

/// What every worker works with.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) reader: Reader,
    pub(crate) components: Arc<Components>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) inputs: Inputs,
    pub(crate) clock: Clock,
}

/// The pool.
pub(crate) struct Workers {
    queues: Vec<SyncSender<Job>>,
    searches: SyncSender<FindJob>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` workers, at least one, and the thread that searches.
    pub(crate) fn start(count: usize, tools: &Tools) -> std::io::Result<Self> {
        let (searches, jobs) = sync_channel(SEARCHES_WAITING_MAX);
        let mut workers = Self {
            queues: Vec::new(),
            searches,
            threads: Vec::new(),
        };
        let reader = tools.reader.clone();
        let searcher = Builder::new().name("searcher".to_owned());
        let searcher = searcher.spawn(move || find::work(&jobs, &reader))?;
        workers.threads.push(searcher);
        for index in 0..count.max(1) {
            let (queue, jobs) = sync_channel(JOBS_WAITING_MAX);
            let tools = tools.clone();
            let thread = Builder::new()
                .name(format!("worker-{index}"))
                .stack_size(tidegate_runtime::limits::CALLER_STACK_BYTES)
                .spawn(move || work(&jobs, &tools))?;
            workers.queues.push(queue);
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// One worker without a thread; whoever drives it has it do its jobs. Searches are refused.
    pub(crate) fn by_hand(tools: Tools) -> (Self, Hand) {
        let (queue, jobs) = sync_channel(JOBS_WAITING_MAX);
        let (searches, _) = sync_channel(0);
        let workers = Self {
            queues: vec![queue],
            searches,
            threads: Vec::new(),
        };
        let judge = Judge::new(&tools);
        let hand = Hand { jobs, judge, tools };
        (workers, hand)
    }

    /// Hands a job of a queue to that queue's worker.
    pub(crate) fn give(&self, queue: QueueId, job: Job) {
        let count = u64::try_from(self.queues.len()).expect("a small number");
        let worker = usize::try_from(queue.0 % count).expect("below a small number");
        // It only fails if the worker has panicked; its thread's message says why.
        let _ = self.queues[worker].send(job);
    }

    /// Hands on a search. One that finds too many waiting is refused; the code comes back.
    pub(crate) fn search(&self, job: FindJob) -> Option<Code> {
        let (TrySendError::Full(job) | TrySendError::Disconnected(job)) =
            self.searches.try_send(job).err()?;
        let refusal = Refusal::new(code::OVERLOADED, "too many searches wait already")
            .hint("try again in a moment");
        let code = refusal.code;
        // The caller may have gone away.
        let _ = job.answer.send(Err(refusal));
        Some(code)
    }

    /// Tells all workers which bindings are left.
    pub(crate) fn retain(&self, bindings: &Arc<[Binding]>) {
        for queue in &self.queues {
            let _ = queue.send(Job::Retain(Arc::clone(bindings)));
        }
    }

    /// Lets every worker finish what it was given.
    pub(crate) fn stop(self) {
        drop((self.queues, self.searches));
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

/// A worker that is driven by hand.
pub(crate) struct Hand {
    jobs: Receiver<Job>,
    judge: Judge,
    tools: Tools,
}

impl Hand {
    /// Does the next job; `false` if there is none.
    pub(crate) fn work(&mut self) -> bool {
        let Ok(job) = self.jobs.try_recv() else {
            return false;
        };
        let mut outbox = Outbox::default();
        do_job(job, &mut self.judge, &mut outbox, &self.tools);
        outbox.send(&self.tools);
        true
    }
}

fn work(jobs: &Receiver<Job>, tools: &Tools) {
    let mut judge = Judge::new(tools);
    let mut outbox = Outbox::default();
    while let Ok(job) = jobs.recv() {
        do_job(job, &mut judge, &mut outbox, tools);
        // What waits already is done first: a subscription then gets several runs in one go.
        while outbox.runs() < OUTBOX_RUNS_MAX
            && let Ok(job) = jobs.try_recv()
        {
            do_job(job, &mut judge, &mut outbox, tools);
        }
        outbox.send(tools);
    }
}

fn do_job(job: Job, judge: &mut Judge, outbox: &mut Outbox, tools: &Tools) {
    match job {
        Job::Fetch(fetch) => fetch::fetch(&fetch, judge, tools),
        Job::Send(grant) => send::send(grant, outbox, tools),
        Job::Read(read) => fetch::read(read, judge, tools),
        Job::Retain(bindings) => judge.retain(&bindings),
    }
}
