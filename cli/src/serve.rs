//! `tidegate serve`: a node on a data folder.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;
use tidegate_server::{CompilerCommand, Config, Server, StartError, TOKEN_LIFE};

use crate::allocator;
use crate::app::App;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::logging;
use crate::output::API_VERSION;

/// The hidden command whose process compiles components.
pub(crate) const COMPILE_CHILD: &str = "compile-child";
/// The ready file has the root token in it.
const OWNER_ONLY: u32 = 0o600;

/// Run a broker on a data folder
///
/// At the first start it makes its key and certificate and prints a one-time token. It stops on
/// Ctrl-C or SIGTERM, and keeps what was acknowledged whatever ends it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data folder; made if it isn't there
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Where clients connect (UDP); port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4433")]
    listen: SocketAddr,
    /// The host that the printed address names [default: that of --listen]
    #[arg(long, value_name = "HOST")]
    public_host: Option<String>,
    /// Where /livez, /readyz and /metrics are (HTTP), without authentication
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    admin: SocketAddr,
    /// What to log, as in `info` or `warn,tidegate_store=debug`
    #[arg(long, value_name = "FILTER", env = logging::VARIABLE, hide_env_values = true, default_value = "info")]
    log: String,
    /// Written once the broker is ready: a JSON object with address, admin and root_token
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub(crate) async fn run(app: &mut App, args: Args) -> Result<()> {
    logging::start(&args.log)?;
    allocator::use_small_pages();
    let mut interrupt = Interrupt::listen()?;
    if let Some(file) = &args.ready_file {
        remove(file)?;
    }
    let server = Server::start(config(&args)?).await.map_err(refused)?;
    if let Some(file) = &args.ready_file
        && let Err(failure) = write_ready_file(file, &server)
    {
        server.shutdown().await;
        return Err(failure);
    }
    // Whoever started it may not read its output; that stops no broker.
    let _unread = announce(app, &server);
    tokio::select! {
        () = interrupt.wait() => {}
        () = allocator::give_back() => {}
    }
    tracing::info!("stopping");
    let removed = args.ready_file.as_deref().map_or(Ok(()), remove);
    server.shutdown().await;
    removed
}

/// Reads a component from standard input and writes its compiled form: see the plugin host.
pub(crate) fn compile_child() -> ExitCode {
    tidegate_server::compile_child()
}

fn config(args: &Args) -> Result<Config> {
    let program =
        env::current_exe().map_err(|error| Failure::file("find", "the program itself", &error))?;
    let compiler = CompilerCommand {
        program,
        args: vec![COMPILE_CHILD.into()],
    };
    let mut config = Config::new(&args.data, compiler);
    config.listen = args.listen;
    config.admin = args.admin;
    config.public_host.clone_from(&args.public_host);
    Ok(config)
}

fn refused(error: StartError) -> Failure {
    let hint = error.hint();
    Failure::new(error.code(), error.to_string()).hint(hint)
}

fn announce(app: &mut App, server: &Server) -> Result<()> {
    let address = server.address();
    app.out
        .line(&format!("tidegate {}", env!("CARGO_PKG_VERSION")))?;
    app.out.line(&format!("address  {address}"))?;
    app.out
        .line(&format!("metrics  http://{}/metrics", server.admin_addr()))?;
    if let Some(token) = server.root_token() {
        let minutes = TOKEN_LIFE.as_secs() / 60;
        let why = if server.has_clients() {
            "this broker's key is new, and clients know another one"
        } else {
            "no client is registered yet"
        };
        app.out.line(&format!(
            "{why}; within {minutes} minutes, run\n  \
             tidegate login '{address}' --token {token}"
        ))?;
    }
    app.out.line("ready")
}

/// Written beside and moved into place: whoever sees the file sees all of it.
fn write_ready_file(file: &Path, server: &Server) -> Result<()> {
    let ready = json!({
        "apiVersion": API_VERSION,
        "kind": "ready",
        "address": server.address(),
        "admin": server.admin_addr().to_string(),
        "root_token": server.root_token(),
        "pid": std::process::id(),
    });
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let written = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(OWNER_ONLY)
        .open(&beside)
        .and_then(|mut out| writeln!(out, "{ready}"))
        .and_then(|()| fs::rename(&beside, file));
    written.map_err(|error| Failure::file("write", file, &error))
}

/// A ready file that is there says that a broker is.
fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::file("remove", file, &error))
        }
        _ => Ok(()),
    }
}
