//! Publishes a message per line of standard input, and says where each is stored.
//!
//! ```text
//! export TIDEGATE_ADDRESS='tidegate://…' TIDEGATE_KEY_FILE=app.key
//! cargo run -p tidegate-client --example publish orders < orders.txt
//! ```

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::io::{self, BufRead};

use tidegate_client::{ClientConfig, Message, ProducerOptions, TopicRef};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let topic: TopicRef = std::env::args()
        .nth(1)
        .ok_or("usage: publish TOPIC")?
        .parse()?;
    let client = ClientConfig::from_env()?.connect().await?;
    let producer = client.producer(&topic, ProducerOptions::default()).await?;

    // Messages go out in batches, ahead of their acknowledgements.
    let mut pending = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let key = line.split(' ').next().unwrap_or_default().to_owned();
        // Messages of one key keep their order.
        pending.push(producer.send(Message::new(line).key(key)).await?);
    }
    for pending in pending {
        let sent = pending.await?;
        println!(
            "queue {} offset {} level {:?}",
            sent.queue_index, sent.offset, sent.level
        );
    }
    producer.close().await?;
    client.close().await;
    Ok(())
}
