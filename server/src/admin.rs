//! Health and metrics over HTTP, for probes and scrapers. Reads only; loopback by default.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::http;
use crate::node::Node;

/// The text format of OpenMetrics 1.0.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A running HTTP endpoint; stops when dropped.
pub(crate) struct Admin {
    pub(crate) addr: SocketAddr,
    _stop: watch::Sender<()>,
}

impl Admin {
    pub(crate) async fn start(addr: SocketAddr, node: Arc<Node>) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let (stop, stopped) = watch::channel(());
        let routes = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(node);
        // A dropped sender stops it.
        tokio::spawn(http::serve(listener, routes, stopped));
        Ok(Self { addr, _stop: stop })
    }
}

/// The process runs.
async fn livez() -> &'static str {
    "ok\n"
}

/// The node takes publishes: its log is not fenced, and the disk neither full nor slow.
async fn readyz(State(node): State<Arc<Node>>) -> impl IntoResponse {
    let health = node.health();
    let status = if health.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "ready": health.is_ready(),
        "components": {
            "log": health.log(),
            "disk": health.disk(),
            "listener": if health.stopping { "stopping" } else { "ok" },
        },
    });
    (status, Json(body))
}

async fn metrics(State(node): State<Arc<Node>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], node.metrics_text())
}
