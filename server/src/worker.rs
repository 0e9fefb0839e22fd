//! Threads that read the log and run guests, so that the owner never waits for either.
//!
//! Jobs of one queue go to one worker, in order: what is fetched first is judged and sent first.

mod fetch;
mod find;
mod judge;
mod search;
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
use crate::vital::vital;
pub(crate) use find::{FindJob, Wanted};
use judge::{Judge, Seat};
use send::Outbox;

/// Jobs that may wait for one worker; the owner waits when it is full, and workers never wait for
/// the owner.
const JOBS_WAITING_MAX: usize = 16_384;

/// Fetches and reads through bindings that overran before that may wait; further ones come again later.
const SLOW_WAITING_MAX: usize = 256;

/// How much less urgent that thread is than others: `nice` of the system.
const SLOW_NICENESS: i32 = 10;

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
    pub(crate) slow: Slow,
}

/// The thread for fetches through bindings that overran before: they wait for one another, and nobody
/// else waits for them.
#[derive(Clone, Default)]
pub(crate) struct Slow(Option<SyncSender<Job>>);

impl Slow {
    /// Hands a job over; it comes back if too many wait.
    fn give(&self, job: Job) -> Result<(), Box<Job>> {
        match &self.0 {
            Some(jobs) => jobs.try_send(job).map_err(|full| match full {
                TrySendError::Full(job) | TrySendError::Disconnected(job) => Box::new(job),
            }),
            None => Err(Box::new(job)),
        }
    }
}

/// The pool.
pub(crate) struct Workers {
    queues: Vec<SyncSender<Job>>,
    searches: SyncSender<FindJob>,
    components: Arc<Components>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` workers, at least one, and the thread that searches.
    pub(crate) fn start(count: usize, tools: &Tools) -> std::io::Result<Self> {
        let (searches, jobs) = sync_channel(SEARCHES_WAITING_MAX);
        let mut workers = Self {
            queues: Vec::new(),
            searches,
            components: Arc::clone(&tools.components),
            threads: Vec::new(),
        };
        let (slow, slow_jobs) = sync_channel(SLOW_WAITING_MAX);
        let slow_tools = tools.clone();
        let thread = Builder::new()
            .name("slow-worker".to_owned())
            .stack_size(tidegate_runtime::limits::CALLER_STACK_BYTES)
            .spawn(move || vital(|| work(&slow_jobs, &slow_tools, Seat::Slow)))?;
        workers.threads.push(thread);
        let tools = &Tools {
            slow: Slow(Some(slow)),
            ..tools.clone()
        };
        let reader = tools.reader.clone();
        let searcher = Builder::new().name("searcher".to_owned());
        let searcher = searcher.spawn(move || vital(|| find::work(&jobs, &reader)))?;
        workers.threads.push(searcher);
        for index in 0..count.max(1) {
            let (queue, jobs) = sync_channel(JOBS_WAITING_MAX);
            let tools = tools.clone();
            let thread = Builder::new()
                .name(format!("worker-{index}"))
                .stack_size(tidegate_runtime::limits::CALLER_STACK_BYTES)
                .spawn(move || vital(|| work(&jobs, &tools, Seat::Worker)))?;
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
            components: Arc::clone(&tools.components),
            threads: Vec::new(),
        };
        let judge = Judge::new(&tools, Seat::Simulated);
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

    /// Ends what runs of bindings that aren't among these.
    pub(crate) fn retain<'a>(&self, bindings: impl Iterator<Item = &'a Binding>) {
        self.components
            .guests()
            .retain(&bindings.map(|binding| binding.id).collect());
    }

    /// Lets every worker finish what it was given; guests end at once.
    pub(crate) fn stop(self) {
        self.components.guests().stop();
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
        do_job(job, &self.judge, &mut outbox, &self.tools);
        outbox.send(&self.tools);
        true
    }
}

fn work(jobs: &Receiver<Job>, tools: &Tools, seat: Seat) {
    if seat == Seat::Slow
        && let Err(error) = rustix::process::nice(SLOW_NICENESS)
    {
        tracing::debug!(%error, "the slow worker runs as urgently as the others");
    }
    let judge = Judge::new(tools, seat);
    let mut outbox = Outbox::default();
    while let Ok(job) = jobs.recv() {
        do_job(job, &judge, &mut outbox, tools);
        // What waits already is done first: a subscription then gets several runs in one go.
        while outbox.runs() < OUTBOX_RUNS_MAX
            && let Ok(job) = jobs.try_recv()
        {
            do_job(job, &judge, &mut outbox, tools);
        }
        outbox.send(tools);
    }
}

fn do_job(job: Job, judge: &Judge, outbox: &mut Outbox, tools: &Tools) {
    match job {
        Job::Fetch(fetch) => fetch::fetch(fetch, judge, tools),
        Job::Send(grant) => send::send(grant, outbox, tools),
        Job::Read(read) => fetch::read(read, judge, tools),
    }
}
