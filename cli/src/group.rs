//! `tidegate group`.

mod show;

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_client::{
    Client, CreateGroup, CursorMove, GroupRef, ResetGroup, RetryPolicy, Source, StartAt,
};

use crate::app::App;
use crate::binding::{self, Policy};
use crate::confirm::Confirm;
use crate::connect::with_client;
use crate::failure::{Failure, Result};
use crate::names::Namespace;
use crate::output::{Column, Item};
use crate::units;

/// Consumer groups: named cursors over topics and views
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a group
    Create {
        /// Its name
        group: String,
        /// Deliveries in all before a message goes to the dead-letter topic
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        max_attempts: Option<u16>,
        /// Waits before attempt 2, 3, ...; the last serves all further ones
        #[arg(
            long, value_name = "1s,5s,...", value_delimiter = ',', value_parser = units::backoff
        )]
        backoff: Vec<Duration>,
        /// Check the request and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the groups of the namespace
    #[command(visible_alias = "list")]
    Ls,
    /// Show a group: cursors, lag, leases, retries
    Info {
        /// Its name
        group: String,
    },
    /// Remove a group with its cursors
    #[command(visible_alias = "delete")]
    Rm {
        /// Its name
        group: String,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Move a group's cursor; tells old and new offsets first
    Reset {
        /// Its name
        group: String,
        /// The topic or view whose cursor moves
        #[arg(long, value_name = "TOPIC[@VIEW]")]
        source: String,
        /// earliest, latest, an offset, an instant (2026-01-31T12:00:00Z) or an age (-2h)
        #[arg(long, value_name = "WHERE", value_parser = units::start, allow_hyphen_values = true)]
        to: StartAt,
        #[command(flatten)]
        confirm: Confirm,
    },
    /// Let a plugin decide what of a topic the group gets, in place of one bound before
    Bind {
        /// The group
        group: String,
        /// The topic
        #[arg(long)]
        topic: String,
        /// The plugin version and its configuration (=@FILE reads it from a file)
        #[arg(long, value_name = "NAME:VERSION[=CONFIG]")]
        plugin: String,
        /// What happens to messages on which the plugin fails
        #[arg(long, value_enum, default_value_t, value_name = "POLICY")]
        on_error: Policy,
        /// Check the request and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove the plugin bound to a group's subscription of a topic
    Unbind {
        /// The group
        group: String,
        /// The topic
        #[arg(long)]
        topic: String,
        /// Check the request and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

const COLUMNS: &[Column] = &[
    Column::text("group"),
    Column::text("consumes"),
    Column::number("members"),
    Column::number("lag"),
    Column::number("leased"),
    Column::number("parked"),
    Column::number("max attempts").wide(),
];

pub(crate) async fn run(app: &mut App, command: Command) -> Result<()> {
    let namespace = app.namespace()?;
    match command {
        Command::Create {
            group,
            max_attempts,
            backoff,
            dry_run,
        } => {
            let create = CreateGroup {
                group: namespace.group(&group)?,
                policy: policy(max_attempts, backoff),
            };
            if dry_run {
                let sentence = format!("make group {}", create.group);
                return dry(app, &sentence);
            }
            with_client(app, async |app, client| {
                let info = client.create_group(&create).await?;
                let name = info.group.group.as_str();
                app.out
                    .done(name, &format!("group {name} is there"), &show::value(&info))
            })
            .await
        }
        Command::Ls => {
            with_client(app, async |app, client| {
                let groups = client.groups(&namespace.0).await?;
                let items: Vec<Item> = groups.iter().map(show::item).collect();
                app.out.list("groups", COLUMNS, &items)
            })
            .await
        }
        Command::Info { group } => {
            let group = namespace.group(&group)?;
            with_client(app, async |app, client| {
                let info = client.group(&group).await?;
                app.out.one(
                    info.group.group.as_str(),
                    &show::fields(&info),
                    &show::value(&info),
                )
            })
            .await
        }
        Command::Rm { group, confirm } => {
            let group = namespace.group(&group)?;
            confirm.check(&format!("remove group {group}"))?;
            with_client(app, async |app, client| {
                remove(app, client, &group, confirm).await
            })
            .await
        }
        Command::Reset {
            group,
            source,
            to,
            confirm,
        } => {
            let reset = ResetGroup {
                group: namespace.group(&group)?,
                source: namespace.source(&source)?,
                to,
                dry_run: true,
            };
            confirm.check(&format!("move the cursor of group {}", reset.group))?;
            with_client(app, async |app, client| {
                move_cursor(app, client, reset, confirm).await
            })
            .await
        }
        Command::Bind {
            group,
            topic,
            plugin,
            on_error,
            dry_run,
        } => {
            let (group, topic) = (namespace.group(&group)?, namespace.topic(&topic)?);
            let binding = binding::parse(&namespace, &plugin, on_error)?;
            let sentence = format!("bind {} to {group}:{topic}", binding::show(&binding));
            with_client(app, async |app, client| {
                if dry_run {
                    client.check_bind(&group, &topic, &binding).await?;
                    return dry(app, &sentence);
                }
                client.bind(&group, &topic, &binding).await?;
                let value = json!({
                    "kind": "binding",
                    "group": group.group.as_str(),
                    "topic": topic.topic.as_str(),
                    "binding": binding::value(&binding),
                });
                let sentence = format!("{} decides what {group} gets of {topic}", binding.plugin);
                app.out.done(&format!("{group}:{topic}"), &sentence, &value)
            })
            .await
        }
        Command::Unbind {
            group,
            topic,
            dry_run,
        } => unbind(app, &namespace, &group, &topic, dry_run).await,
    }
}

fn dry(app: &mut App, sentence: &str) -> Result<()> {
    app.out
        .note(&format!("dry run, nothing changed: {sentence}"));
    Ok(())
}

async fn remove(app: &mut App, client: &Client, group: &GroupRef, confirm: Confirm) -> Result<()> {
    client.group(group).await?;
    if confirm.asks(app, &format!("Remove group {group} with its cursors?"))? {
        client.delete_group(group).await?;
        let name = group.group.as_str();
        let value = json!({ "kind": "group", "name": name, "removed": true });
        app.out
            .done(name, &format!("group {group} is removed"), &value)?;
    }
    Ok(())
}

async fn move_cursor(
    app: &mut App,
    client: &Client,
    mut reset: ResetGroup,
    confirm: Confirm,
) -> Result<()> {
    let moves = client.reset_group(&reset).await?;
    for (index, moved) in moves.iter().enumerate() {
        let line = format!("queue {index}: {} -> {}", moved.from, moved.to);
        app.out.note(&line);
    }
    let what = format!("cursor of group {} on {}", reset.group, reset.source);
    if confirm.dry_run {
        app.out.note("dry run, nothing changed");
        return told(app, &reset, &moves, "would move");
    }
    if !confirm.asks(
        app,
        &format!("Move the {what}? Its leases and retries are dropped."),
    )? {
        return Ok(());
    }
    reset.dry_run = false;
    let moves = client.reset_group(&reset).await?;
    told(app, &reset, &moves, "moved")
}

fn told(app: &mut App, reset: &ResetGroup, moves: &[CursorMove], verb: &str) -> Result<()> {
    let queues: Vec<Value> = moves
        .iter()
        .enumerate()
        .map(|(index, moved)| json!({ "index": index, "from": moved.from.0, "to": moved.to.0 }))
        .collect();
    let value = json!({
        "kind": "reset",
        "group": reset.group.group.as_str(),
        "source": reset.source.to_string(),
        "dry_run": reset.dry_run,
        "queues": queues,
    });
    let sentence = format!(
        "the cursor of group {} on {} {verb}",
        reset.group, reset.source
    );
    app.out.done(reset.group.group.as_str(), &sentence, &value)
}

async fn unbind(
    app: &mut App,
    namespace: &Namespace,
    group: &str,
    topic: &str,
    dry_run: bool,
) -> Result<()> {
    let (group, topic) = (namespace.group(group)?, namespace.topic(topic)?);
    with_client(app, async |app, client| {
        let source = Source::Topic(topic.clone());
        if dry_run {
            let info = client.group(&group).await?;
            let bound = info
                .subscriptions
                .iter()
                .find(|subscription| subscription.source == source)
                .and_then(|subscription| subscription.binding.as_ref());
            let binding = bound.ok_or_else(|| {
                Failure::new(
                    tidegate_model::code::BINDING_NOT_FOUND,
                    format!("no plugin is bound to group {group} on topic {topic}"),
                )
                .hint(format!("tidegate group info {}", group.group))
            })?;
            return dry(
                app,
                &format!("unbind {} from {group}:{topic}", binding.plugin),
            );
        }
        client.unbind(&group, &topic).await?;
        let value = json!({
            "kind": "binding",
            "group": group.group.as_str(),
            "topic": topic.topic.as_str(),
            "removed": true,
        });
        let sentence = format!("group {group} gets all of {topic}");
        app.out.done(&format!("{group}:{topic}"), &sentence, &value)
    })
    .await
}

/// What was asked for, and for the half that wasn't the broker's default; `None` if neither was.
fn policy(max_attempts: Option<u16>, backoff: Vec<Duration>) -> Option<RetryPolicy> {
    if max_attempts.is_none() && backoff.is_empty() {
        return None;
    }
    let mut policy = RetryPolicy::default();
    if let Some(max_attempts) = max_attempts {
        policy.max_attempts = max_attempts;
    }
    if !backoff.is_empty() {
        policy.backoff_ms = backoff.into_iter().map(units::millis).collect();
    }
    Some(policy)
}
