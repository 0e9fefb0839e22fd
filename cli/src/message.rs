//! `tidegate message`: looking at stored messages, without a group.

mod shown;

use tidegate_client::{Client, Find, Received, Source, StartAt};
use tidegate_model::{MessageId, Offset, Order, Timestamp, TopicRef, code};

use crate::app::App;
use crate::connect::with_client;
use crate::failure::{Failure, Result};
use crate::line;
use crate::units;

/// Messages where no number is asked for.
const LIMIT_DEFAULT: u64 = 20;
/// Messages that one request asks for at most.
const PAGE_MAX: u64 = 1000;
/// Messages that are held to be printed as one table or document.
const GATHERED_MAX: u64 = 10_000;

/// Messages: find what is stored by key, time, id or offset
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the messages of a topic, by key, by time, or both
    Find(FindArgs),
    /// Show one message in full, by its id or by queue and offset
    Get(GetArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct FindArgs {
    /// The topic
    topic: String,
    /// Only messages with this key
    #[arg(short, long, value_name = "KEY")]
    key: Option<String>,
    /// The same for a key that is no text, in base64
    #[arg(long, value_name = "BASE64", conflicts_with = "key", value_parser = key_of)]
    key_base64: Option<Bytes>,
    /// Only messages stored at this instant (2026-01-31T12:00:00Z) or age (-2h), or later
    #[arg(long, value_name = "WHEN", value_parser = units::when, allow_hyphen_values = true)]
    from: Option<Timestamp>,
    /// Only messages stored before this instant or age
    #[arg(long, value_name = "WHEN", value_parser = units::when, allow_hyphen_values = true)]
    to: Option<Timestamp>,
    /// The newest first, which is the default
    #[arg(long, conflicts_with = "oldest")]
    newest: bool,
    /// The oldest first
    #[arg(long)]
    oldest: bool,
    /// End after this many messages
    #[arg(short, long, value_name = "N", default_value_t = LIMIT_DEFAULT, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// All there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Go on where a list ended; it printed this token
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    page: Option<String>,
}

/// A key that was given in base64. An alias, since clap takes a plain vector for a list.
type Bytes = std::sync::Arc<[u8]>;

fn key_of(base64: &str) -> std::result::Result<Bytes, String> {
    line::bytes_of(base64).map(Into::into)
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["id", "offset"])))]
pub(crate) struct GetArgs {
    /// The topic
    topic: String,
    /// The message's id, as in 3-1042-7
    id: Option<MessageId>,
    /// Its queue, with --offset
    #[arg(long, value_name = "N", requires = "offset", conflicts_with = "id")]
    queue: Option<u32>,
    /// Its offset there
    #[arg(long, value_name = "N", requires = "queue", conflicts_with = "id")]
    offset: Option<u64>,
    /// Print the body alone, byte for byte
    #[arg(long)]
    body: bool,
}

pub(crate) async fn run(app: &mut App, command: Command) -> Result<()> {
    let namespace = app.namespace()?;
    match command {
        Command::Find(args) => {
            let topic = namespace.topic(&args.topic)?;
            with_client(app, async |app, client| {
                find(app, client, &args, topic).await
            })
            .await
        }
        Command::Get(args) => {
            let topic = namespace.topic(&args.topic)?;
            with_client(app, async |app, client| {
                let received = get(client, &args, &topic).await?;
                if args.body {
                    let body = received.message.body.as_deref();
                    app.out.data(body.unwrap_or_default())
                } else {
                    shown::one(app, &topic, &received)
                }
            })
            .await
        }
    }
}

async fn find(app: &mut App, client: &Client, args: &FindArgs, topic: TopicRef) -> Result<()> {
    let key = args.key.as_ref().map(|key| key.as_bytes().to_vec());
    let mut find = Find {
        key: key.or_else(|| args.key_base64.as_ref().map(|key| key.to_vec())),
        from: args.from.unwrap_or(Timestamp(i64::MIN)),
        to: args.to.unwrap_or(Timestamp(i64::MAX)),
        order: if args.oldest {
            Order::OldestFirst
        } else {
            Order::NewestFirst
        },
        page: args.page.clone(),
        ..Find::in_topic(topic)
    };
    if find.from >= find.to {
        return Err(Failure::usage("--from is not before --to")
            .because("--to is exclusive: no instant lies between them")
            .hint("tidegate message find TOPIC --from -2h --to -1h"));
    }
    let is_streamed = app.out.is_streamed();
    let limit = match (args.all, is_streamed) {
        (true, true) => u64::MAX,
        (true, false) => GATHERED_MAX,
        (false, true) => args.limit,
        (false, false) => args.limit.min(GATHERED_MAX),
    };
    let mut list = shown::List::new(&find.topic);
    let mut unreadable = 0;
    loop {
        let left = (limit - list.count()).min(PAGE_MAX);
        find.max_messages = u32::try_from(left).expect("a page is small");
        let page = client.find(&find).await?;
        list.add(&page.messages);
        unreadable += page.unreadable;
        find.page = page.next;
        if is_streamed {
            list.print(app)?;
        }
        if find.page.is_none() || list.count() >= limit {
            break;
        }
    }
    if !is_streamed {
        list.finish(app, find.page.as_deref())?;
    }
    if unreadable > 0 {
        app.out.warn(
            "damaged parts of the log were passed over; they may have held messages looked for",
        );
    }
    app.out.note(&summary(&list, args, &find));
    if let Some(page) = &find.page {
        app.out.note(&format!(
            "there may be more: the same command with --page {page}"
        ));
    }
    Ok(())
}

/// How many messages of what.
fn summary(list: &shown::List<'_>, args: &FindArgs, find: &Find) -> String {
    let count = match list.count() {
        0 => "no message".to_owned(),
        1 => "1 message".to_owned(),
        many => format!("{} messages", units::count(many)),
    };
    let key = match (&args.key, &args.key_base64) {
        (Some(key), _) => format!(" with key {key:?}"),
        (None, Some(_)) => " with that key".to_owned(),
        (None, None) => String::new(),
    };
    let from = match args.from {
        Some(from) => format!("from {}", units::show_instant(from)),
        None => "from the beginning".to_owned(),
    };
    let to = match args.to {
        Some(to) => format!("before {}", units::show_instant(to)),
        None => "to the end".to_owned(),
    };
    format!("{count} of {}{key}, {from}, {to}", find.topic)
}

async fn get(client: &Client, args: &GetArgs, topic: &TopicRef) -> Result<Received> {
    if let Some(id) = args.id {
        return Ok(client.message(topic, id).await?);
    }
    let (queue, offset) = args
        .queue
        .zip(args.offset)
        .expect("the grammar asks for both");
    let missing = || {
        Failure::new(
            code::MESSAGE_NOT_FOUND,
            format!("queue {queue} of topic {topic} holds no message at offset {offset}"),
        )
        .hint(format!("tidegate topic info {}", topic.topic))
    };
    let source = Source::Topic(topic.clone());
    let from = StartAt::Offset(Offset(offset));
    match client.read(&source, queue, from, 1).await {
        Ok(read) => {
            let is_it = |received: &Received| received.offset.0 == offset;
            read.messages.into_iter().find(is_it).ok_or_else(missing)
        }
        Err(error) if error.code == code::OFFSET_OUT_OF_RANGE => {
            Err(missing().because(error.message))
        }
        Err(error) => Err(error.into()),
    }
}
