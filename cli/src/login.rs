//! `tidegate login`: exchanges the one-time token for a client key.

use std::env;
use std::fs;
use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use serde_json::json;
use tidegate_client::{Address, Client, ClientKey};
use tidegate_model::Name;

use crate::app::App;
use crate::context::{Context, Store};
use crate::failure::{Failure, Result};

/// Client name where the environment knows no user.
const NAME_DEFAULT: &str = "cli";

/// Exchange a one-time token for a client key, kept as a context
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server's address with its pin, as `tidegate serve` prints it
    address: String,
    /// The one-time token; without it, it is read from standard input
    #[arg(long)]
    token: Option<String>,
    /// A file with the token, where --token isn't given
    #[arg(
        long,
        value_name = "FILE",
        env = "TIDEGATE_TOKEN_FILE",
        hide_env_values = true
    )]
    token_file: Option<PathBuf>,
    /// What the server is to call this client [default: the user's name]
    #[arg(long)]
    name: Option<String>,
}

pub(crate) async fn run(app: &mut App, args: Args) -> Result<()> {
    let address: Address = args.address.parse()?;
    let client = client_name(args.name.as_deref())?;
    let context = match app.global.context.as_deref() {
        Some(name) => Name::new(name)?.as_str().to_owned(),
        None => context_name(&address),
    };
    let token = token(app, args.token, args.token_file)?;
    let store = Store::find()?;
    log_in(&store, &address, &token, &client, &context).await?;
    let value = json!({
        "kind": "context",
        "name": context,
        "client": client.as_str(),
        "address": address.to_string(),
        "in_use": true,
    });
    let sentence = format!("logged in as {client}; context {context} is in use now");
    app.out.done(&context, &sentence, &value)
}

/// Uses the token up, so everything that can fail on this machine is tried before.
pub(crate) async fn log_in(
    store: &Store,
    address: &Address,
    token: &str,
    client: &Name,
    context: &str,
) -> Result<()> {
    let locked = store.lock()?;
    let key = ClientKey::generate()?;
    let kept = Context {
        address: address.to_string(),
        client: client.as_str().to_owned(),
        key: key.to_pem()?,
    };
    Client::login(address, token, client, &key).await?;
    locked.insert(context, kept)
}

fn client_name(given: Option<&str>) -> Result<Name> {
    match given {
        Some(name) => Ok(Name::new(name)?),
        None => Ok(env::var("USER")
            .ok()
            .and_then(|user| Name::new(&user).ok())
            .unwrap_or(Name::new(NAME_DEFAULT)?)),
    }
}

/// `HOST-PORT`, with what no name may have replaced.
fn context_name(address: &Address) -> String {
    let mut name = String::new();
    for c in format!("{}-{}", address.host, address.port).chars() {
        let kept = c.is_ascii_alphanumeric() || (c == '.' && !name.ends_with('.'));
        match (kept, name.is_empty()) {
            (true, _) => name.push(c),
            (false, true) => {}
            (false, false) => name.push('-'),
        }
    }
    name
}

fn token(app: &mut App, given: Option<String>, file: Option<PathBuf>) -> Result<String> {
    let text = match (given, file) {
        (Some(token), _) => token,
        (None, Some(path)) => {
            fs::read_to_string(&path).map_err(|error| Failure::file("read", &path, &error))?
        }
        (None, None) => {
            if io::stdin().is_terminal() {
                app.out.ask("token:");
            }
            let mut line = String::new();
            io::stdin()
                .lock()
                .read_line(&mut line)
                .map_err(|error| Failure::file("read", "standard input", &error))?;
            line
        }
    };
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::usage("no token was given")
            .hint("add --token TOKEN, as the server printed it at its first start"));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_named_after_its_server() {
        for (host, name) in [
            ("127.0.0.1", "127.0.0.1-4433"),
            ("broker.example", "broker.example-4433"),
            ("::1", "1-4433"),
        ] {
            let address = Address {
                host: host.to_owned(),
                port: 4433,
                pin: tidegate_client::Pin([0; 32]),
            };
            let found = context_name(&address);
            assert_eq!(found, name);
            assert!(Name::new(&found).is_ok());
        }
    }
}
