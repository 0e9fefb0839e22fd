//! `tidegate client`: who may use a server, and for what.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_client::{Client, ClientInfo, InviteClient};
use tidegate_model::{Name, Role, Roles, code};

use crate::app::App;
use crate::confirm::Confirm;
use crate::connect::{self, with_client};
use crate::failure::{Failure, Result};
use crate::output::{Column, Item};
use crate::units;

/// Digits of a key that a list shows: enough to tell the keys of a server.
const SHORT_KEY: usize = 12;
/// Longest life of an invitation that the server takes.
const LIFE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Clients: who may use the server, and for what
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a token that lets a client in, once: `tidegate login` takes it
    Invite {
        /// How the client is to be known
        name: String,
        /// What it may do: admin, producer or consumer; may be repeated [default: producer and
        /// consumer]
        #[arg(long, value_name = "ROLE", value_parser = role)]
        role: Vec<Role>,
        /// In every namespace, not in that of --namespace alone; an admin is so anyway
        #[arg(long)]
        all_namespaces: bool,
        /// How long the token is good for, up to 30 days
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = life)]
        expires: Duration,
    },
    /// List who is let in or invited
    #[command(visible_alias = "list")]
    Ls {
        /// Revoked keys too
        #[arg(long)]
        all: bool,
    },
    /// Show a client with all its keys
    Info {
        /// Its name
        name: String,
    },
    /// End what a client may do, at once and for ever; withdraws an invitation too
    #[command(visible_aliases = ["rm", "delete"])]
    Revoke {
        /// Its name
        name: String,
        /// Of its keys only the one that begins so, as `client info` shows it
        #[arg(long, value_name = "HEX")]
        key: Option<String>,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const COLUMNS: &[Column] = &[
    Column::text("client"),
    Column::text("roles"),
    Column::text("namespaces"),
    Column::text("state"),
    Column::text("key"),
    Column::text("since").wide(),
];

fn role(text: &str) -> std::result::Result<Role, String> {
    text.parse()
        .map_err(|error: tidegate_model::RoleError| error.to_string())
}

fn life(text: &str) -> std::result::Result<Duration, String> {
    units::duration_up_to(text, LIFE_MAX)
}

pub(crate) async fn run(app: &mut App, command: Command) -> Result<()> {
    match command {
        Command::Invite {
            name,
            role,
            all_namespaces,
            expires,
        } => {
            let roles = if role.is_empty() {
                [Role::Producer, Role::Consumer].into_iter().collect()
            } else {
                role.into_iter().collect::<Roles>()
            };
            let everywhere = all_namespaces || roles.contains(Role::Admin);
            let invite = InviteClient {
                name: Name::new(&name)?,
                roles,
                namespaces: if everywhere {
                    Vec::new()
                } else {
                    vec![app.namespace()?.0]
                },
                life: expires,
            };
            with_client(app, async |app, client| {
                invite_client(app, client, &invite).await
            })
            .await
        }
        Command::Ls { all } => {
            with_client(app, async |app, client| {
                let mut clients = client.clients(None, all).await?;
                clients.sort_by(|a, b| (&a.name, a.public_key).cmp(&(&b.name, b.public_key)));
                let items: Vec<Item> = clients.iter().map(item).collect();
                app.out.list("clients", COLUMNS, &items)
            })
            .await
        }
        Command::Info { name } => {
            let name = Name::new(&name)?;
            with_client(app, async |app, client| {
                let found = client.clients(Some(&name), true).await?;
                info(app, &name, &found)
            })
            .await
        }
        Command::Revoke { name, key, confirm } => {
            let name = Name::new(&name)?;
            confirm.check(&format!("revoke client {name}"))?;
            with_client(app, async |app, client| {
                revoke(app, client, &name, key.as_deref(), confirm).await
            })
            .await
        }
    }
}

async fn invite_client(app: &mut App, client: &Client, invite: &InviteClient) -> Result<()> {
    let address = connect::address(app)?;
    let invited = client.invite_client(invite).await?;
    let (name, token) = (&invite.name, &invited.token);
    let value = json!({
        "kind": "invitation",
        "name": name.as_str(),
        "roles": roles_value(invite.roles),
        "namespaces": names_value(&invite.namespaces),
        "token": token,
        "expires": units::show_instant(invited.expires),
        "address": address,
    });
    // The token is what was asked for: it comes also where sentences are not wanted.
    if app.out.is_quiet() && !app.out.is_json() {
        return app.out.line(token);
    }
    let sentence = format!(
        "{name} is invited as {}, {}; until {}, run there\n  \
         tidegate login '{address}'\n\
         and give it this token, which works once:\n  \
         {token}",
        invite.roles,
        places(&invite.namespaces),
        units::show_instant(invited.expires),
    );
    app.out.done(token, &sentence, &value)
}

fn info(app: &mut App, name: &Name, found: &[ClientInfo]) -> Result<()> {
    if found.is_empty() {
        return Err(not_found(name));
    }
    let lines: Vec<String> = found
        .iter()
        .map(|client| {
            let key = client.public_key.as_ref().map_or_else(
                || "no key yet".to_owned(),
                |key| format!("key {}", hex(key)),
            );
            format!(
                "{}, {}, {} since {}: {key}",
                client.roles,
                places(&client.namespaces),
                state(client),
                units::show_instant(client.revoked.unwrap_or(client.since)),
            )
        })
        .collect();
    let fields = [("client", name.to_string()), ("keys", lines.join("\n"))];
    let value = json!({
        "kind": "client",
        "name": name.as_str(),
        "keys": found.iter().map(value).collect::<Vec<_>>(),
    });
    app.out.one(name.as_str(), &fields, &value)
}

async fn revoke(
    app: &mut App,
    client: &Client,
    name: &Name,
    key: Option<&str>,
    confirm: Confirm,
) -> Result<()> {
    let mut found = client.clients(Some(name), false).await?;
    let mut public_key = None;
    if let Some(prefix) = key {
        let prefix = prefix.to_ascii_lowercase();
        found.retain(|client| {
            client
                .public_key
                .is_some_and(|key| hex(&key).starts_with(&prefix))
        });
        if found.len() > 1 {
            return Err(Failure::usage(format!(
                "{} keys of client {name} begin with {prefix:?}",
                found.len()
            ))
            .hint(format!(
                "give more of the key: tidegate client info {name} shows all of it"
            )));
        }
        public_key = found.first().and_then(|client| client.public_key);
    }
    if found.is_empty() {
        return Err(not_found(name));
    }
    let keys = found
        .iter()
        .filter(|client| client.public_key.is_some())
        .count();
    let itself = *name == client.identity().principal;
    let question = match (keys, itself) {
        (0, _) => format!("Withdraw the invitation of {name}?"),
        (1, false) => format!("Revoke the key of client {name}?"),
        (1, true) => format!("Revoke the key of client {name}, which may be the one in use here?"),
        (keys, false) => format!("Revoke all {keys} keys of client {name}?"),
        (keys, true) => {
            format!("Revoke all {keys} keys of client {name}, the one in use here included?")
        }
    };
    if !confirm.asks(app, &question)? {
        return Ok(());
    }
    match client.revoke_client(name, public_key).await {
        Ok(()) => {}
        // The answer may be overtaken by the end of this very connection.
        Err(error) if itself && error.code == code::KEY_REVOKED => {}
        Err(error) => return Err(error.into()),
    }
    let value = json!({ "kind": "client", "name": name.as_str(), "revoked": true, "keys": keys });
    let sentence = match keys {
        0 => format!("the invitation of {name} is withdrawn"),
        _ => format!("client {name} is revoked; its connections have ended"),
    };
    app.out.done(name.as_str(), &sentence, &value)
}

fn not_found(name: &Name) -> Failure {
    Failure::new(
        code::CLIENT_NOT_FOUND,
        format!("no client {name} is let in or invited with such a key"),
    )
    .hint("tidegate client ls --all")
}

fn item(client: &ClientInfo) -> Item {
    let key = client.public_key.as_ref().map(hex);
    Item {
        name: client.name.to_string(),
        cells: vec![
            client.name.to_string(),
            client.roles.to_string(),
            match client.namespaces.as_slice() {
                [] => "all".to_owned(),
                some => names(some),
            },
            state(client),
            key.map_or_else(String::new, |key| key[..SHORT_KEY].to_owned()),
            units::show_instant(client.since),
        ],
        json: value(client),
    }
}

fn value(client: &ClientInfo) -> Value {
    json!({
        "kind": "client",
        "name": client.name.as_str(),
        "roles": roles_value(client.roles),
        "namespaces": names_value(&client.namespaces),
        "state": state(client),
        "key": client.public_key.as_ref().map(hex),
        "since": units::show_instant(client.since),
        "revoked": client.revoked.map(units::show_instant),
        "expires": client.expires.map(units::show_instant),
    })
}

fn hex(key: &[u8; 32]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn state(client: &ClientInfo) -> String {
    match (client.revoked, client.expires) {
        (Some(_), _) => "revoked",
        (None, Some(expires)) if expires <= units::now() => "expired",
        (None, Some(_)) => "invited",
        (None, None) => "active",
    }
    .to_owned()
}

fn roles_value(roles: Roles) -> Vec<&'static str> {
    roles.iter().map(Role::name).collect()
}

fn names_value(names: &[Name]) -> Vec<&str> {
    names.iter().map(Name::as_str).collect()
}

fn names(names: &[Name]) -> String {
    names_value(names).join(", ")
}

fn places(namespaces: &[Name]) -> String {
    match namespaces {
        [] => "in every namespace".to_owned(),
        [one] => format!("in namespace {one}"),
        some => format!("in namespaces {}", names(some)),
    }
}
