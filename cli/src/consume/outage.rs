//! The time without a broker: waiting for it, and saying so.

use std::time::{Duration, Instant};

use tidegate_client::{Client, Connection};
use tidegate_model::code;

use crate::app::App;
use crate::failure::{Exit, Failure, Result};

/// How long an outage may last where nobody asked to follow.
pub(super) const OUTAGE_MAX: Duration = Duration::from_secs(10);
/// Between two tries where the connection holds and the broker refuses to serve.
const PAUSE: Duration = Duration::from_millis(200);

/// What is known of the broker's absence.
pub(super) struct Outage {
    connection: Connection,
    /// Waits for ever.
    follow: bool,
    since: Option<Instant>,
    /// There was one before.
    pub(super) seen: bool,
}

/// A broker that is about to stop, or has just started, may say so too.
fn is_overloaded(failure: &Failure) -> bool {
    matches!(failure, Failure::Error(report) if report.code == Some(code::OVERLOADED))
}

impl Outage {
    pub(super) fn watch(client: &Client, follow: bool) -> Self {
        Self {
            connection: client.connection(),
            follow,
            since: None,
            seen: false,
        }
    }

    /// Whether the broker is away, as far as is known.
    pub(super) fn is_now(&self) -> bool {
        self.since.is_some()
    }

    /// Waits until the connection breaks or is made anew, and says which.
    ///
    /// Cancel-safe.
    pub(super) async fn changed(&mut self, app: &mut App) {
        self.connection.changed().await;
        if self.connection.is_up() {
            self.over(app);
        } else {
            self.begin(app);
        }
    }

    /// After a request that failed: waits until it is worth to ask again. Fails with what is no outage,
    /// and with one that lasts too long.
    ///
    /// Cancel-safe.
    pub(super) async fn wait(&mut self, app: &mut App, failure: Failure) -> Result<()> {
        if !failure.is_outage() && !is_overloaded(&failure) {
            return Err(failure);
        }
        self.begin(app);
        let lasts = self.since.map(|since| since.elapsed());
        if !self.follow && lasts.is_some_and(|lasts| lasts >= OUTAGE_MAX) {
            return Err(failure.exits(Exit::Unreachable));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(self.connection.up().await?)
    }

    /// The broker answered.
    pub(super) fn over(&mut self, app: &mut App) {
        if self.since.take().is_some() {
            app.out.note("the broker is back");
        }
    }

    fn begin(&mut self, app: &mut App) {
        if self.since.is_some() {
            return;
        }
        self.since = Some(Instant::now());
        self.seen = true;
        app.out.note(&if self.follow {
            "the broker is away; waiting until it is back, or Ctrl-C".to_owned()
        } else {
            format!(
                "the broker is away; waiting for it, {} s at most (--follow waits for ever)",
                OUTAGE_MAX.as_secs()
            )
        });
    }
}
