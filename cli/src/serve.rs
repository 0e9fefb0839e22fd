//! `tidegate serve`: a node on a data folder.

use std::env;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::Resource;
use tidegate_server::{CompilerCommand, Config, Server, StartError, TOKEN_LIFE, TokenFor};

use crate::allocator;
use crate::app::App;
use crate::failure::{Failure, Result};
use crate::interrupt::{Interrupt, outlive_terminal};
use crate::logging;
use crate::ready;
use crate::units;

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
    /// Where clients connect (UDP); port 0 takes a free one, a port alone is of 127.0.0.1
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4433", value_parser = place)]
    listen: SocketAddr,
    /// The host that the printed address names [default: that of --listen]
    #[arg(long, value_name = "HOST")]
    public_host: Option<String>,
    /// Where /livez, /readyz and /metrics are (HTTP), without authentication
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0", value_parser = place)]
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
    let config = config(&args)?;
    if !args.data.exists() {
        try_places(&args)?;
    }
    let server = Server::start(config).await.map_err(refused)?;
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
        caught = outlive_terminal() => {
            if let Err(Failure::Error(report)) = caught {
                tracing::warn!("{}: a terminal that closes ends the broker", report.what);
                interrupt.wait().await;
            }
        }
    }
    tracing::info!("stopping");
    let removed = args.ready_file.as_deref().map_or(Ok(()), ready::remove);
    server.shutdown().await;
    removed
}

/// Reads `HOST:PORT`, where the host may be a name, or a port alone, with or without a colon: that is
/// one of this machine's own clients.
fn place(text: &str) -> std::result::Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    if let Ok(place) = text.parse() {
        return Ok(place);
    }
    let wrong = |why: &str| {
        format!(
            "{why}: write HOST:PORT as in 0.0.0.0:4433, [::1]:4433 or localhost:4433, or a port alone"
        )
    };
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => text
            .to_socket_addrs()
            .map_err(|error| wrong(&format!("the host {host} has no address ({error})")))?
            .next()
            .ok_or_else(|| wrong(&format!("the host {host} has no address"))),
        _ => Err(wrong("that is no place to listen")),
    }
}

/// Refuses a place that can't be had before a folder is made for a broker that can't start.
fn try_places(args: &Args) -> Result<()> {
    UdpSocket::bind(args.listen).map_err(|error| {
        refused(StartError::Listen {
            addr: args.listen,
            reason: error.to_string(),
        })
    })?;
    TcpListener::bind(args.admin).map_err(|source| {
        refused(StartError::Admin {
            addr: args.admin,
            source,
        })
    })?;
    Ok(())
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
    let failure = Failure::new(error.code(), error.to_string());
    let limit = rustix::process::getrlimit(Resource::As).current;
    match limit.filter(|_| is_out_of_memory(&error)) {
        Some(limit) => failure
            .because(format!(
                "its address space is limited to {}; the broker maps its log and reserves room for \
                 plugins, far more than the memory that it uses",
                units::bytes(limit)
            ))
            .hint("start it under `ulimit -v unlimited`, and limit its memory with a cgroup"),
        None => failure.hint(hint),
    }
}

/// Errors of other crates carry the system's only as text.
fn is_out_of_memory(error: &StartError) -> bool {
    let number = rustix::io::Errno::NOMEM.raw_os_error();
    error.to_string().contains(&format!("os error {number})"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_host_or_is_a_port_alone() {
        for (text, place_of) in [
            ("4602", "127.0.0.1:4602"),
            (":4602", "127.0.0.1:4602"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(
                place(text).map(|place| place.to_string()).as_deref(),
                Ok(place_of)
            );
        }
        let local = place("localhost:4602").expect("every machine knows it");
        assert!(local.ip().is_loopback() && local.port() == 4602);
        for text in [
            "",
            ":",
            "localhost",
            "localhost:x",
            "::1:4602",
            "65536",
            "a b:1",
        ] {
            assert!(place(text).is_err(), "{text:?} passed");
        }
    }
}
