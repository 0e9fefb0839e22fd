//! `tidegate login`: exchanges the one-time token for a client key.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tidegate_client::{Address, Client, ClientKey};
use tidegate_model::Name;
use tidegate_model::code::Remedy;

use crate::app::App;
use crate::context::{Context, Store};
use crate::failure::{Failure, Result};
use crate::secret;

/// Client name where the environment knows no user.
const NAME_DEFAULT: &str = "cli";

/// Exchange a one-time token for a client key, kept as a context
///
/// The token is one that `tidegate serve` printed, or one of `tidegate client invite`. It is read from
/// standard input; a terminal asks for it, and doesn't show it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The server's address with its pin, as `tidegate serve` prints it
    address: String,
    /// A file with the token, instead of standard input
    #[arg(
        long,
        value_name = "FILE",
        env = "TIDEGATE_TOKEN_FILE",
        hide_env_values = true
    )]
    token_file: Option<PathBuf>,
    /// The token itself: everybody on this machine can read it then, so rather leave this out
    #[arg(long)]
    token: Option<String>,
    /// What the server is to call this client, with a root token; an invitation has a name of its own
    /// [default: the user's name]
    #[arg(long)]
    name: Option<String>,
    /// Write the key to this new file, for an application, and keep no context
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

pub(crate) async fn run(app: &mut App, args: Args) -> Result<()> {
    let address: Address = args.address.parse()?;
    let name = client_name(args.name.as_deref())?;
    let context = match app.global.context.as_deref() {
        Some(name) => Name::new(name)?.as_str().to_owned(),
        None => context_name(&address),
    };
    let token = token(app, args.token, args.token_file).await?;
    if let Some(file) = &args.key_file {
        let client = log_in_to_file(file, &address, &token, &name).await?;
        let value = json!({
            "kind": "key",
            "name": client.as_str(),
            "client": client.as_str(),
            "address": address.to_string(),
            "file": file.display().to_string(),
        });
        let sentence = format!(
            "logged in as {client}; an application connects with\n  \
             export TIDEGATE_ADDRESS='{address}' TIDEGATE_KEY_FILE='{}'",
            file.display()
        );
        return app.out.done(client.as_str(), &sentence, &value);
    }
    let store = Store::find()?;
    let client = log_in(&store, &address, &token, &name, &context).await?;
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

/// Uses the token up, so everything that can fail on this machine is tried before. How the server
/// calls the client.
pub(crate) async fn log_in(
    store: &Store,
    address: &Address,
    token: &str,
    name: &Name,
    context: &str,
) -> Result<Name> {
    let locked = store.lock()?;
    let key = ClientKey::generate()?;
    let pem = key.to_pem()?;
    let client = Client::login(address, token, name, &key).await?.principal;
    let kept = Context {
        address: address.to_string(),
        client: client.as_str().to_owned(),
        key: pem,
    };
    locked.insert(context, kept)?;
    Ok(client)
}

/// The same with a key file, which doesn't stay if the server lets the key not in.
async fn log_in_to_file(file: &Path, address: &Address, token: &str, name: &Name) -> Result<Name> {
    let key = ClientKey::generate()?;
    key.to_new_file(file)?;
    match Client::login(address, token, name, &key).await {
        Ok(identity) => Ok(identity.principal),
        Err(error) => {
            // Whether the key was let in may be unknown; then it stays.
            if error.remedy() != Remedy::Retry {
                let _left = fs::remove_file(file);
            }
            Err(error.into())
        }
    }
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

async fn token(app: &mut App, given: Option<String>, file: Option<PathBuf>) -> Result<String> {
    let text = match (given, file) {
        (Some(token), _) => token,
        (None, Some(path)) => secret::of_file(&path)?,
        (None, None) => secret::of_input(app, "token:").await?,
    };
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::usage("no token was given").hint(
            "give it on standard input or with --token-file FILE: `tidegate serve` printed it, or `tidegate client invite NAME`",
        ));
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
