//! `tidegate topic`.

mod settings;

use serde_json::{Value, json};
use tidegate_client::{CreateTopic, QueueInfo, TopicInfo};
use tidegate_model::{TopicChange, TopicRef, TopicSettings};

use crate::app::App;
use crate::confirm::Confirm;
use crate::connect::with_client;
use crate::failure::{Failure, Result};
use crate::output::{Column, Item};
use crate::units;

/// Queues where none are asked for: enough for a handful of consumers side by side.
const QUEUES_DEFAULT: u32 = 4;

/// Topics: ordered queues of messages
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a topic
    Create {
        /// Its name
        topic: String,
        /// Queues, 1 to 1,024; order is kept within a queue
        #[arg(long, value_name = "N", default_value_t = QUEUES_DEFAULT)]
        queues: u32,
        #[command(flatten)]
        settings: settings::Options,
        /// Check the request and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Change what a topic keeps
    Set {
        /// Its name
        topic: String,
        #[command(flatten)]
        settings: settings::Options,
        /// Check the request and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the topics of the namespace
    #[command(visible_alias = "list")]
    Ls,
    /// Show a topic, what it keeps, and its queues
    Info {
        /// Its name
        topic: String,
    },
    /// Remove a topic with all its messages
    #[command(visible_alias = "delete")]
    Rm {
        /// Its name
        topic: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const COLUMNS: &[Column] = &[
    Column::text("topic"),
    Column::number("queues"),
    Column::number("messages"),
    Column::text("size").wide(),
    Column::text("keeps").wide(),
    Column::text("created").wide(),
    Column::number("layout").wide(),
];

pub(crate) async fn run(app: &mut App, command: Command) -> Result<()> {
    let namespace = app.namespace()?;
    match command {
        Command::Create {
            topic,
            queues,
            settings,
            dry_run,
        } => {
            let create = CreateTopic {
                topic: namespace.new_topic(&topic)?,
                queues: checked_queues(queues)?,
                settings: settings.change(),
            };
            let kept = changed(&create.topic, TopicSettings::default(), &create.settings)?;
            if dry_run {
                app.out.note(&format!(
                    "dry run, nothing changed: make topic {} with {queues} queues, which keeps {}",
                    create.topic,
                    settings::sentence(&kept)
                ));
                return Ok(());
            }
            with_client(app, async |app, client| {
                let info = client.create_topic(&create).await?;
                let name = info.topic.topic.as_str();
                let sentence = format!("topic {name} is there, with {queues} queues");
                app.out.done(name, &sentence, &value(&info))
            })
            .await
        }
        Command::Set {
            topic,
            settings,
            dry_run,
        } => set(app, namespace.topic(&topic)?, &settings.change(), dry_run).await,
        Command::Ls => {
            with_client(app, async |app, client| {
                let topics = client.topics(&namespace.0).await?;
                let items: Vec<Item> = topics.iter().map(item).collect();
                app.out.list("topics", COLUMNS, &items)
            })
            .await
        }
        Command::Info { topic } => {
            let topic = namespace.topic(&topic)?;
            with_client(app, async |app, client| {
                let info = client.topic(&topic).await?;
                show(app, &info)
            })
            .await
        }
        Command::Rm { topic, confirm } => {
            let topic = namespace.topic(&topic)?;
            confirm.check(&format!("remove topic {topic}"))?;
            with_client(app, async |app, client| {
                let info = client.topic(&topic).await?;
                let question = format!(
                    "Remove topic {topic} with its {} messages?",
                    units::count(messages(&info))
                );
                if confirm.asks(app, &question)? {
                    client.delete_topic(&topic).await?;
                    let value =
                        json!({ "kind": "topic", "name": topic.topic.as_str(), "removed": true });
                    app.out.done(
                        topic.topic.as_str(),
                        &format!("topic {topic} is removed"),
                        &value,
                    )?;
                }
                Ok(())
            })
            .await
        }
    }
}

async fn set(app: &mut App, topic: TopicRef, change: &TopicChange, dry_run: bool) -> Result<()> {
    if change.is_empty() {
        return Err(
            Failure::usage(format!("nothing of topic {topic} is to be changed"))
                .hint(format!("tidegate topic set {} --retain 72h", topic.topic)),
        );
    }
    with_client(app, async |app, client| {
        let old = client.topic(&topic).await?.settings;
        let kept = changed(&topic, old, change)?;
        if dry_run {
            app.out.note(&format!(
                "dry run, nothing changed: topic {topic} keeps {}, and would keep {}",
                settings::sentence(&old),
                settings::sentence(&kept)
            ));
            return Ok(());
        }
        let info = client.update_topic(&topic, change).await?;
        let sentence = format!("topic {topic} keeps {}", settings::sentence(&info.settings));
        app.out.done(topic.topic.as_str(), &sentence, &value(&info))
    })
    .await
}

/// The server checks the same.
fn changed(topic: &TopicRef, of: TopicSettings, change: &TopicChange) -> Result<TopicSettings> {
    of.changed(change).map_err(|error| {
        Failure::new(
            tidegate_model::code::INVALID_ARGUMENT,
            format!("topic {topic}: {error}"),
        )
        .hint("tidegate topic set --help")
    })
}

fn checked_queues(queues: u32) -> Result<u32> {
    let max = tidegate_model::limits::TOPIC_QUEUES_MAX;
    if (1..=max).contains(&queues) {
        return Ok(queues);
    }
    Err(Failure::new(
        tidegate_model::code::INVALID_ARGUMENT,
        format!("a topic has 1 to {max} queues; {queues} were asked for"),
    )
    .hint("tidegate topic create NAME --queues 4"))
}

fn messages(info: &TopicInfo) -> u64 {
    info.queues.iter().map(held).sum()
}

fn size(info: &TopicInfo) -> u64 {
    info.queues.iter().map(|queue| queue.bytes).sum()
}

fn held(queue: &QueueInfo) -> u64 {
    queue.next.0.saturating_sub(queue.start.0)
}

fn item(info: &TopicInfo) -> Item {
    Item {
        name: info.topic.topic.as_str().to_owned(),
        cells: vec![
            info.topic.topic.as_str().to_owned(),
            info.queues.len().to_string(),
            messages(info).to_string(),
            units::bytes(size(info)),
            settings::sentence(&info.settings),
            units::show_instant(info.created),
            info.layout_version.to_string(),
        ],
        json: value(info),
    }
}

fn show(app: &mut App, info: &TopicInfo) -> Result<()> {
    // Where messages were superseded offsets are missing.
    let most = if info.settings.compact { "up to " } else { "" };
    let queues: Vec<String> = info
        .queues
        .iter()
        .enumerate()
        .map(|(index, queue)| {
            let oldest = queue.oldest.map_or_else(String::new, |oldest| {
                format!(", oldest of {}", units::show_instant(oldest))
            });
            format!(
                "{index}: offsets {} to {}, {most}{} messages, {}{oldest}, shard {}",
                queue.start,
                queue.next,
                held(queue),
                units::bytes(queue.bytes),
                queue.shard
            )
        })
        .collect();
    let fields = [
        ("topic", info.topic.to_string()),
        ("created", units::show_instant(info.created)),
        ("keeps", settings::sentence(&info.settings)),
        ("messages", format!("{most}{}", messages(info))),
        ("size", units::bytes(size(info))),
        ("queues", queues.join("\n")),
    ];
    let mut value = value(info);
    for (index, queue) in info.queues.iter().enumerate() {
        value["queues"][index]["oldest"] = json!(queue.oldest.map(units::show_instant));
    }
    app.out.one(info.topic.topic.as_str(), &fields, &value)
}

fn value(info: &TopicInfo) -> Value {
    let queues: Vec<Value> = info
        .queues
        .iter()
        .enumerate()
        .map(|(index, queue)| {
            json!({
                "index": index,
                "id": queue.queue.0,
                "shard": queue.shard.0,
                "start": queue.start.0,
                "next": queue.next.0,
                "bytes": queue.bytes,
            })
        })
        .collect();
    json!({
        "kind": "topic",
        "namespace": info.topic.namespace.as_str(),
        "name": info.topic.topic.as_str(),
        "created": units::show_instant(info.created),
        "layout_version": info.layout_version,
        "messages": messages(info),
        "bytes": size(info),
        "settings": settings::value(&info.settings),
        "queues": queues,
    })
}
