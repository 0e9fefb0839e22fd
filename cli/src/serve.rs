//! `tidegate serve`: a node on a data folder.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use tidegate_server::{CompilerCommand, Config, Server, StartError, TOKEN_LIFE, TokenFor};

use crate::allocator;
use crate::app::App;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::logging;
use crate::ready;

/// The hidden command whose process compiles components.
pub(crate) const COMPILE_CHILD: &str = "compile-child";

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
    /// Print a one-time token though there are admins: the way back when their keys are lost
    #[arg(long)]
    new_root_token: bool,
}

pub(crate) async fn run(app: &mut App, args: Args) -> Result<()> {
    logging::start(&args.log)?;
    allocator::use_small_pages();
    let mut interrupt = Interrupt::listen()?;
    if let Some(file) = &args.ready_file {
        ready::remove(file)?;
    }
    let server = Server::start(config(&args)?).await.map_err(refused)?;
    if let Some(file) = &args.ready_file
        && let Err(failure) = ready::write(file, &server)
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
    let removed = args.ready_file.as_deref().map_or(Ok(()), ready::remove);
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
    config.new_root_token = args.new_root_token;
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
    if let Some((token, why)) = server.root_token() {
        let minutes = TOKEN_LIFE.as_secs() / 60;
        let why = match why {
            TokenFor::FirstAdmin => "no admin is registered yet",
            TokenFor::NewIdentity => "this broker's key is new, and clients know another one",
            TokenFor::Asked => "--new-root-token lets another admin in",
        };
        app.out.line(&format!(
            "{why}; within {minutes} minutes, run\n  \
             tidegate login '{address}'\n\
             and give it this token, which works once:\n  \
             {token}"
        ))?;
    }
    app.out.line("ready")
}
