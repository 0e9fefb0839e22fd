//! A broker that is killed at random moments while it is published to and consumed from.
//!
//! SIGKILL takes nothing from the page cache, so this can't show that an acknowledgement waited for
//! its sync; the store's own tests over a simulated disk do.

mod check;
mod load;
mod random;

use std::collections::BTreeSet;
use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_client::{Client, ProducerOptions};
use tidegate_model::Message;
use tidegate_sandbox_tests::eventually;

use crate::sandbox::Sandbox;
use crate::sdk::{
    bodies, create_group, create_topic, is_done, membership, publish, read_queue, soon, source,
};
use check::{History, Stored};
use load::{Load, Member};
use random::Random;

/// How often the broker is killed; 10 without it.
const ROUNDS: &str = "TIDEGATE_CRASH_ROUNDS";
/// Repeats the random choices of a run; the moments still depend on the machine.
const SEED: &str = "TIDEGATE_CRASH_SEED";

const TOPIC: &str = "load";
const GROUP: &str = "workers";
const QUEUES: u32 = 4;
/// Members that live as long as the broker; one more outlives it.
const NEWCOMERS: usize = 2;
/// Acknowledged publishes or settled messages that a life goes on for at most.
const PROGRESS_MAX: u64 = 600;
/// What is waited on top, so that the broker dies in all its states.
const MOMENT_MAX_US: u64 = 20_000;
/// One start in so many is cut short, within this time.
const STARTS_CUT_SHORT: u64 = 3;
const START_MAX_US: u64 = 150_000;
/// Messages that come after everything else, enough for every queue to get some.
const SENTINELS: u32 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_sigkill() {
    let rounds: u32 = env::var(ROUNDS).map_or(10, |rounds| rounds.parse().unwrap());
    let mut random = Random::new(env::var(SEED).ok().map(|seed| seed.parse().unwrap()));
    eprintln!("{SEED}={} {ROUNDS}={rounds}", random.seed());

    let mut sandbox = Sandbox::start();
    let client = sandbox.client().await;
    create_topic(&client, TOPIC, QUEUES).await;
    create_group(&client, GROUP, 1000, Duration::from_millis(10)).await;
    let history = Arc::new(History::default());
    let load = Load::start(&client, &history).await;
    let veteran = Member::join(&client, &history, "veteran").await;
    let mut newcomers = join(&sandbox, &history).await;

    for round in 1..=rounds {
        let begun = Instant::now();
        live_a_while(&history, &mut random);
        let lived = begun.elapsed();
        sandbox.kill();
        history.died();
        newcomers.clear();
        if random.below(STARTS_CUT_SHORT) == 0 {
            sandbox.die_starting(Duration::from_micros(random.below(START_MAX_US)));
        }
        sandbox.start_again();
        newcomers = join(&sandbox, &history).await;
        let (published, settled) = history.progress();
        let away = begun.elapsed().saturating_sub(lived);
        eprintln!(
            "round {round}: {published} published, {settled} settled, lived {lived:.1?}, away {away:.1?}"
        );
    }
    live_a_while(&history, &mut random);
    soon("the producers to finish", load.stop()).await;

    eventually("every acknowledged message to be delivered", || {
        history.undelivered().is_empty().then_some(())
    });
    soon("the group to have settled everything", async {
        while !is_done(&client, GROUP, TOPIC).await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop((veteran, newcomers));

    // All is settled: after one more death nothing but what is new may come.
    sandbox.kill();
    sandbox.start_again();
    let client = sandbox.client().await;
    let mut log = Vec::new();
    for queue in 0..QUEUES {
        let stored = read_queue(&client, &source(TOPIC), queue).await;
        log.push(stored.into_iter().map(Stored::from).collect());
    }
    let violations = history.check(&log);
    assert!(
        violations.is_empty(),
        "seed {}: {violations:#?}",
        random.seed()
    );
    nothing_comes_again(&client).await;
}

/// Members on a connection of their own, which is of this life.
async fn join(sandbox: &Sandbox, history: &Arc<History>) -> Vec<Member> {
    let client = sandbox.client().await;
    let mut members = Vec::new();
    for number in 0..NEWCOMERS {
        members.push(Member::join(&client, history, &format!("newcomer {number}")).await);
    }
    members
}

/// Until the broker has done something, and a moment longer.
fn live_a_while(history: &History, random: &mut Random) {
    let before = history.progress();
    let goal = random.below(PROGRESS_MAX);
    let publishing = random.below(2) == 0;
    eventually("the broker to make progress", || {
        let now = history.progress();
        let done = if publishing {
            now.0 - before.0
        } else {
            now.1 - before.1
        };
        (done > goal).then_some(())
    });
    let moment = Duration::from_micros(random.below(MOMENT_MAX_US));
    std::thread::sleep(moment); // paces: a kill at a random moment is what this is about
}

/// Publishes until every queue has something new; a fresh member gets that and nothing else.
async fn nothing_comes_again(client: &Client) {
    let options = ProducerOptions::default();
    let messages =
        (0..SENTINELS).map(|n| Message::new(format!("sentinel {n:04}")).key(n.to_be_bytes()));
    let sentinels: Vec<String> = (0..SENTINELS).map(|n| format!("sentinel {n:04}")).collect();
    let sent = publish(client, TOPIC, options, messages).await;
    let queues: BTreeSet<u32> = sent.iter().map(|sent| sent.queue_index).collect();
    assert_eq!(queues.len(), QUEUES as usize);
    let mut member = soon("a member", client.consumer(&membership(GROUP, TOPIC)))
        .await
        .unwrap();
    let mut received = Vec::new();
    while received.len() < sentinels.len() {
        received.append(&mut soon("sentinels", member.next_batch()).await.unwrap());
    }
    let mut received = bodies(&received);
    received.sort();
    assert_eq!(received, sentinels);
}
