//! Making a broken connection anew.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tidegate_model::code;
use tidegate_model::code::Remedy;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{ConnectOptions, closed};
use crate::Error;
use crate::link::{Connector, Link};

/// First wait between two attempts; it doubles each time.
const WAIT_MIN: Duration = Duration::from_millis(20);
/// Longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest time that one attempt to reconnect takes. A server that is just starting doesn't hear the
/// first packets of an attempt; a new one gets through sooner than the old one's next packet.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// The connection as producers, consumers and requests see it.
pub(super) enum LinkState {
    Up(Arc<Link>),
    Down,
    Ended(Error),
}

/// Holds a connection until it is told to stop.
pub(super) async fn supervise(
    connector: Connector,
    options: ConnectOptions,
    first: Arc<Link>,
    state: watch::Sender<LinkState>,
    mut stop: watch::Receiver<bool>,
) {
    let mut link = first;
    let end = loop {
        let lost = tokio::select! {
            error = link.lost() => Some(error),
            () = stopped(&mut stop) => None,
        };
        let Some(error) = lost else {
            link.close().await;
            break closed();
        };
        if error.code == code::KEY_REVOKED {
            break error;
        }
        tracing::info!(%error, "connection lost, reconnecting");
        state.send_replace(LinkState::Down);
        let again = tokio::select! {
            again = reconnect(&connector, &options) => again,
            () = stopped(&mut stop) => Err(closed()),
        };
        match again {
            Ok(new) => {
                link = new;
                state.send_replace(LinkState::Up(Arc::clone(&link)));
            }
            Err(error) => break error,
        }
    };
    state.send_replace(LinkState::Ended(end));
}

/// Waits until somebody closes the client, or the last clone is dropped.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the sender was dropped.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn reconnect(connector: &Connector, options: &ConnectOptions) -> Result<Arc<Link>, Error> {
    let give_up = Instant::now().checked_add(options.reconnect_timeout);
    let attempt = options.connect_timeout.min(ATTEMPT_MAX);
    let mut wait = WAIT_MIN;
    loop {
        match connector.connect(None, attempt).await {
            Ok((link, _)) => return Ok(link),
            Err(error) => {
                // A server that is starting may not have read its keys yet.
                let again = error.remedy() == Remedy::Retry || error.code == code::AUTH_TIMEOUT;
                if !again || give_up.is_some_and(|at| Instant::now() >= at) {
                    return Err(error);
                }
                tracing::debug!(%error, "couldn't reconnect");
            }
        }
        tokio::time::sleep(wait.mul_f64(jitter())).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// 0.5 to 1, so that the clients of a server that restarts don't come all at once.
fn jitter() -> f64 {
    let random = RandomState::new().hash_one(0u8);
    0.5 + f64::from(u32::try_from(random >> 33).expect("31 bits")) / f64::from(u32::MAX)
}
