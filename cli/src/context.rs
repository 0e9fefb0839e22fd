//! `tidegate context`: which server, and as whom.

mod store;

use serde_json::json;

pub(crate) use store::{Context, Store};

use crate::app::App;
use crate::confirm::Confirm;
use crate::failure::{Failure, Result};
use crate::output::{Column, Item};

/// Which server, and as whom
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List the contexts on this machine
    #[command(visible_alias = "list")]
    Ls,
    /// Use a context from now on
    Use {
        /// Its name
        name: String,
    },
    /// Show a context, by default the one in use; its key is never shown
    Show {
        /// Its name
        name: Option<String>,
    },
    /// Use the context that was in use before
    Previous,
    /// Forget a context and its key
    #[command(visible_alias = "delete")]
    Rm {
        /// Its name
        name: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const COLUMNS: &[Column] = &[
    Column::text("in use"),
    Column::text("context"),
    Column::text("client"),
    Column::text("address"),
];

pub(crate) fn run(app: &mut App, command: Command) -> Result<()> {
    let store = Store::find()?;
    match command {
        Command::Ls => ls(app, &store),
        Command::Use { name } => {
            let name = store.choose(Some(&name))?;
            used(app, &name)
        }
        Command::Previous => {
            let name = store.choose(None)?;
            used(app, &name)
        }
        Command::Show { name } => show(app, &store, name.as_deref()),
        Command::Rm { name, confirm } => {
            confirm.check(&format!("forget context {name}"))?;
            store.named(&name)?;
            if confirm.asks(app, &format!("Forget context {name} and its key?"))? {
                store.remove(&name)?;
                let value = json!({ "kind": "context", "name": name, "removed": true });
                app.out
                    .done(&name, &format!("context {name} is forgotten"), &value)?;
            }
            Ok(())
        }
    }
}

fn ls(app: &mut App, store: &Store) -> Result<()> {
    let (contexts, current) = store.all()?;
    let items: Vec<Item> = contexts
        .iter()
        .map(|(name, context)| {
            let in_use = current.as_ref() == Some(name);
            Item {
                name: name.clone(),
                cells: vec![
                    if in_use { "*" } else { "" }.to_owned(),
                    name.clone(),
                    context.client.clone(),
                    context.address.clone(),
                ],
                json: value(name, context, in_use),
            }
        })
        .collect();
    app.out.list("contexts", COLUMNS, &items)
}

fn show(app: &mut App, store: &Store, name: Option<&str>) -> Result<()> {
    let (name, context) = store.named_or_current(name.or(app.global.context.as_deref()))?;
    let (_, current) = store.all()?;
    let in_use = current.as_ref() == Some(&name);
    let fields = [
        ("context", name.clone()),
        ("client", context.client.clone()),
        ("address", context.address.clone()),
        ("in use", if in_use { "yes" } else { "no" }.to_owned()),
        ("file", store.path().display().to_string()),
    ];
    app.out.one(&name, &fields, &value(&name, &context, in_use))
}

fn used(app: &mut App, name: &str) -> Result<()> {
    let value = json!({ "kind": "context", "name": name, "in_use": true });
    app.out
        .done(name, &format!("context {name} is in use now"), &value)
}

fn value(name: &str, context: &Context, in_use: bool) -> serde_json::Value {
    json!({
        "kind": "context",
        "name": name,
        "client": context.client,
        "address": context.address,
        "in_use": in_use,
    })
}

/// No context of this name, or none at all.
fn missing(name: Option<&str>) -> Failure {
    let code = tidegate_model::code::CONTEXT_NOT_FOUND;
    match name {
        Some(name) => Failure::new(
            code,
            format!("there is no context {name:?} on this machine"),
        )
        .hint("tidegate context ls"),
        None => Failure::new(code, "no context is in use on this machine")
            .hint("tidegate login ADDRESS, with the address that `tidegate serve` prints"),
    }
}
