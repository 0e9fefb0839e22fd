//! Consumes messages as a member of a group, and acknowledges each when its work is done.
//!
//! ```text
//! export TIDEGATE_ADDRESS='tidegate://…' TIDEGATE_KEY_FILE=app.key
//! cargo run -p tidegate-client --example consume orders billing 10
//! ```
//!
//! Run it twice at once, and both share the messages.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints"
)]

use tidegate_client::{
    ClientConfig, ConsumerOptions, CreateGroup, GroupRef, Received, Source, code,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, group, count] = args.as_slice() else {
        return Err("usage: consume TOPIC[@VIEW] GROUP COUNT".into());
    };
    let (source, group): (Source, GroupRef) = (source.parse()?, group.parse()?);
    let mut left: u64 = count.parse()?;
    let client = ClientConfig::from_env()?.connect().await?;

    let create = CreateGroup {
        group: group.clone(),
        policy: None,
    };
    match client.create_group(&create).await {
        Ok(_) => {}
        // It was there already.
        Err(error) if error.code == code::GROUP_EXISTS => {}
        Err(error) => return Err(error.into()),
    }

    let mut consumer = client
        .consumer(&ConsumerOptions::new(group, source))
        .await?;
    while left > 0 {
        let received = consumer.next().await?;
        match work(&received) {
            Ok(()) => consumer.ack(&received.handle).await?,
            Err(error) => {
                eprintln!("attempt {} failed: {error}", received.attempt);
                // It comes again after the group's backoff, and in the end is a dead letter.
                consumer.nack(&received.handle, None).await?;
                continue;
            }
        }
        left -= 1;
    }
    // Durable at the server when this returns.
    let settled = consumer.close().await?;
    eprintln!("{} messages settled", settled.done);
    client.close().await;
    Ok(())
}

/// What an application does with a message. It may see one twice, so it does no harm twice.
fn work(received: &Received) -> Result<(), std::str::Utf8Error> {
    let body = received.message.body.as_deref().unwrap_or_default();
    println!("{}", std::str::from_utf8(body)?);
    Ok(())
}
