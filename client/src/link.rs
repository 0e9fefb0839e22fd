//! One connection to the server, authenticated.

mod connect;
mod router;

use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, VarInt};
use tidegate_model::code;
use tidegate_pump::Pump;
use tidegate_wire::proto::{ReplyKind, RequestKind};
use tidegate_wire::{ClientSession, Delivery, Refusal, StreamId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::Error;

pub(crate) use connect::Connector;
pub(crate) use router::Router;

/// How long to wait for a closing connection's last packet to leave. quinn goes on for a while to
/// answer what still arrives; nobody needs that.
const CLOSE_TIME_MAX: Duration = Duration::from_millis(20);

/// One connection. It is closed when it is dropped.
pub(crate) struct Link {
    pump: Pump<ClientSession>,
    router: Arc<Router>,
    endpoint: Endpoint,
    /// Produce and request streams that the server still takes.
    streams: Arc<Semaphore>,
    lost: watch::Receiver<Option<Error>>,
}

/// The answer to a request.
pub(crate) type Answer = (ReplyKind, Vec<Delivery>);

impl Link {
    /// Calls into the session.
    pub(crate) fn with<R>(&self, call: impl FnOnce(&mut ClientSession) -> R) -> R {
        self.pump.with(call)
    }

    /// Where events of streams and subscriptions go.
    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    /// Waits for room for a stream; it is taken until the permit is dropped.
    pub(crate) async fn stream_permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.streams)
            .acquire_owned()
            .await
            .map_err(|_| Error::new(code::CANCELLED, "the connection is closed"))
    }

    /// Asks something and waits for the answer. Dropping the future cancels the request.
    pub(crate) async fn request(&self, kind: RequestKind) -> Result<Answer, Error> {
        let permit = self.stream_permit().await?;
        let (sender, receiver) = oneshot::channel();
        let stream = self.with(|session| {
            let stream = session.request(kind)?;
            // Before the session is unlocked, so that the answer finds it.
            self.router.expect_answer(stream, sender);
            Ok::<_, Refusal>(stream)
        })?;
        let cancel = Cancel { link: self, stream };
        let answer = receiver.await;
        drop(cancel);
        drop(permit);
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(refusal)) => Err(refusal.into()),
            Err(_) => Err(Error::new(
                code::CANCELLED,
                "the connection broke before the answer came",
            )),
        }
    }

    /// Waits until the connection is over and everything in it has been told so; why.
    pub(crate) async fn lost(&self) -> Error {
        let mut lost = self.lost.clone();
        match lost.wait_for(Option::is_some).await {
            Ok(why) => why.clone(),
            Err(_) => None,
        }
        .unwrap_or_else(|| Error::new(code::CANCELLED, "the connection is closed"))
    }

    /// Ends the connection and tells the server.
    pub(crate) async fn close(&self) {
        self.end();
        // If the packet is lost, the server finds out by itself.
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, self.endpoint.wait_idle()).await;
    }

    fn end(&self) {
        let connection = self.pump.connection();
        connection.close(VarInt::from_u32(0), b"the client is done");
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end();
    }
}

/// Cancels a request that is dropped before its answer came; afterwards it does nothing.
struct Cancel<'a> {
    link: &'a Link,
    stream: StreamId,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        if self.link.router.forget_answer(self.stream) {
            self.link
                .with(|session| session.cancel_request(self.stream));
        }
    }
}
