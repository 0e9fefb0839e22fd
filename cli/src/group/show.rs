//! A group as every format prints it.

use serde_json::{Value, json};
use tidegate_client::{GroupInfo, SubscriptionInfo};

use crate::binding;
use crate::output::Item;
use crate::units;

/// Messages between cursor and end, filtered or not.
fn lag(subscription: &SubscriptionInfo) -> u64 {
    let queues = subscription.queues.iter();
    queues
        .map(|queue| queue.next.0.saturating_sub(queue.cursor.0))
        .sum()
}

fn leased(subscription: &SubscriptionInfo) -> u64 {
    subscription.queues.iter().map(|queue| queue.leased).sum()
}

fn parked(subscription: &SubscriptionInfo) -> u64 {
    subscription.queues.iter().map(|queue| queue.parked).sum()
}

pub(super) fn item(info: &GroupInfo) -> Item {
    let sum = |of: fn(&SubscriptionInfo) -> u64| info.subscriptions.iter().map(of).sum::<u64>();
    let sources: Vec<String> = info
        .subscriptions
        .iter()
        .map(|subscription| subscription.source.to_string())
        .collect();
    let name = info.group.group.as_str();
    Item {
        name: name.to_owned(),
        cells: vec![
            name.to_owned(),
            sources.join(", "),
            sum(|subscription| u64::from(subscription.members)).to_string(),
            sum(lag).to_string(),
            sum(leased).to_string(),
            sum(parked).to_string(),
            info.policy.max_attempts.to_string(),
        ],
        json: value(info),
    }
}

pub(super) fn fields(info: &GroupInfo) -> Vec<(&'static str, String)> {
    let backoff: Vec<String> = info
        .policy
        .backoff_ms
        .iter()
        .map(|ms| units::age(u64::from(*ms)))
        .collect();
    let mut fields = vec![
        ("group", info.group.to_string()),
        ("max attempts", info.policy.max_attempts.to_string()),
        ("backoff", backoff.join(", ")),
    ];
    for subscription in &info.subscriptions {
        let mut lines = vec![format!(
            "{}: {} members, lag {}, {} leased, {} parked",
            subscription.source,
            subscription.members,
            lag(subscription),
            leased(subscription),
            parked(subscription)
        )];
        if let Some(bound) = &subscription.binding {
            lines.push(format!("  through {}", binding::show(bound)));
        }
        lines.extend(
            subscription
                .queues
                .iter()
                .enumerate()
                .map(|(index, queue)| {
                    let stopped = queue
                        .stopped
                        .map(|code| format!(", stopped: {code} {}", code.name()))
                        .unwrap_or_default();
                    format!(
                        "  queue {index}: cursor {} of {}, {} leased, {} parked{stopped}",
                        queue.cursor, queue.next, queue.leased, queue.parked
                    )
                }),
        );
        fields.push(("consumes", lines.join("\n")));
    }
    fields
}

pub(super) fn value(info: &GroupInfo) -> Value {
    let subscriptions: Vec<Value> = info.subscriptions.iter().map(subscription).collect();
    json!({
        "kind": "group",
        "namespace": info.group.namespace.as_str(),
        "name": info.group.group.as_str(),
        "max_attempts": info.policy.max_attempts,
        "backoff_ms": info.policy.backoff_ms,
        "subscriptions": subscriptions,
    })
}

fn subscription(info: &SubscriptionInfo) -> Value {
    let queues: Vec<Value> = info
        .queues
        .iter()
        .enumerate()
        .map(|(index, queue)| {
            json!({
                "index": index,
                "cursor": queue.cursor.0,
                "next": queue.next.0,
                "leased": queue.leased,
                "parked": queue.parked,
                "stopped": queue.stopped.map(|code| code.to_string()),
            })
        })
        .collect();
    json!({
        "source": info.source.to_string(),
        "members": info.members,
        "lag": lag(info),
        "leased": leased(info),
        "parked": parked(info),
        "binding": info.binding.as_ref().map(binding::value),
        "queues": queues,
    })
}
