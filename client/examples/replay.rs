//! Reads everything that a topic or view holds, without a group, or finds the messages of a key.
//!
//! ```text
//! export TIDEGATE_ADDRESS='tidegate://…' TIDEGATE_KEY_FILE=app.key
//! cargo run -p tidegate-client --example replay orders
//! cargo run -p tidegate-client --example replay orders 4711
//! ```

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

use tidegate_client::{Client, ClientConfig, Error, Find, Order, Received, Source, StartAt};

/// Messages that one request asks for.
const PAGE: u32 = 1_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let source: Source = args
        .next()
        .ok_or("usage: replay TOPIC[@VIEW] [KEY]")?
        .parse()?;
    let client = ClientConfig::from_env()?.connect().await?;
    match args.next() {
        None => replay(&client, &source).await?,
        Some(key) => find(&client, &source, key).await?,
    }
    client.close().await;
    Ok(())
}

/// Queue by queue, from the first message to what is the last one at that time.
async fn replay(client: &Client, source: &Source) -> Result<(), Error> {
    let topic = client.topic(source.topic()).await?;
    for queue_index in 0..u32::try_from(topic.queues.len()).expect("at most 1,024") {
        let mut from = StartAt::Earliest;
        loop {
            let read = client.read(source, queue_index, from, PAGE).await?;
            read.messages.iter().for_each(print);
            for gap in &read.gaps {
                eprintln!(
                    "queue {queue_index}: offsets {} to {} are damaged: {}",
                    gap.from, gap.to, gap.code
                );
            }
            if read.resume >= read.next {
                break;
            }
            from = StartAt::Offset(read.resume);
        }
    }
    Ok(())
}

/// The messages of a key over all queues, the oldest first, page by page.
async fn find(client: &Client, source: &Source, key: String) -> Result<(), Error> {
    let mut find = Find {
        key: Some(key.into_bytes()),
        order: Order::OldestFirst,
        max_messages: PAGE,
        ..Find::in_topic(source.topic().clone())
    };
    loop {
        let page = client.find(&find).await?;
        page.messages.iter().for_each(print);
        if page.next.is_none() {
            return Ok(());
        }
        find.page = page.next;
    }
}

fn print(received: &Received) {
    let body = received.message.body.as_deref().unwrap_or_default();
    println!(
        "{}/{} {}",
        received.queue_index,
        received.offset,
        String::from_utf8_lossy(body)
    );
}
