//! `tidegate view`.

use serde_json::{Value, json};
use tidegate_client::{CreateView, ViewInfo};

use crate::app::App;
use crate::binding::{self, Policy};
use crate::confirm::Confirm;
use crate::connect::with_client;
use crate::failure::Result;
use crate::output::{Column, Item};
use crate::units;

/// Views: a topic seen through plugins, under a name
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a view; a message is in it if all its plugins accept it
    Create {
        /// Topic and name
        #[arg(value_name = "TOPIC@VIEW")]
        view: String,
        /// A plugin version and its configuration (=@FILE reads it from a file); may be repeated
        #[arg(long, required = true, value_name = "NAME:VERSION[=CONFIG]")]
        plugin: Vec<String>,
        /// What happens to messages on which a plugin fails
        #[arg(long, value_enum, default_value_t, value_name = "POLICY")]
        on_error: Policy,
        /// Check the request and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the views of the namespace
    #[command(visible_alias = "list")]
    Ls,
    /// Show a view and its plugins
    Info {
        /// Topic and name
        #[arg(value_name = "TOPIC@VIEW")]
        view: String,
    },
    /// Remove a view; its topic keeps the messages
    #[command(visible_alias = "delete")]
    Rm {
        /// Topic and name
        #[arg(value_name = "TOPIC@VIEW")]
        view: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const COLUMNS: &[Column] = &[
    Column::text("view"),
    Column::text("plugins"),
    Column::text("created").wide(),
];

pub(crate) async fn run(app: &mut App, command: Command) -> Result<()> {
    let namespace = app.namespace()?;
    match command {
        Command::Create {
            view,
            plugin,
            on_error,
            dry_run,
        } => {
            let create = CreateView {
                view: namespace.view(&view)?,
                bindings: plugin
                    .iter()
                    .map(|text| binding::parse(&namespace, text, on_error))
                    .collect::<Result<_>>()?,
            };
            if dry_run {
                return with_client(app, async |app, client| {
                    client.check_view(&create).await?;
                    let chain: Vec<String> = create.bindings.iter().map(binding::show).collect();
                    app.out.note(&format!(
                        "dry run, nothing changed: make view {} with {}",
                        create.view,
                        chain.join("; then ")
                    ));
                    Ok(())
                })
                .await;
            }
            with_client(app, async |app, client| {
                let info = client.create_view(&create).await?;
                let name = name(&info);
                app.out
                    .done(&name, &format!("view {name} is there"), &value(&info))
            })
            .await
        }
        Command::Ls => {
            with_client(app, async |app, client| {
                let views = client.views(&namespace.0).await?;
                let items: Vec<Item> = views.iter().map(item).collect();
                app.out.list("views", COLUMNS, &items)
            })
            .await
        }
        Command::Info { view } => {
            let view = namespace.view(&view)?;
            with_client(app, async |app, client| {
                let info = client.view(&view).await?;
                let chain: Vec<String> = info.bindings.iter().map(binding::show).collect();
                let fields = [
                    ("view", info.view.to_string()),
                    ("created", units::show_instant(info.created)),
                    ("plugins", chain.join("\n")),
                ];
                app.out.one(&name(&info), &fields, &value(&info))
            })
            .await
        }
        Command::Rm { view, confirm } => {
            let view = namespace.view(&view)?;
            confirm.check(&format!("remove view {view}"))?;
            with_client(app, async |app, client| {
                let info = client.view(&view).await?;
                if confirm.asks(app, &format!("Remove view {view} and the cursors on it?"))? {
                    client.delete_view(&view).await?;
                    let name = name(&info);
                    let value = json!({ "kind": "view", "name": name, "removed": true });
                    app.out
                        .done(&name, &format!("view {view} is removed"), &value)?;
                }
                Ok(())
            })
            .await
        }
    }
}

/// `TOPIC@VIEW` without the namespace.
fn name(info: &ViewInfo) -> String {
    format!("{}@{}", info.view.topic.topic, info.view.view)
}

fn item(info: &ViewInfo) -> Item {
    let plugins: Vec<String> = info
        .bindings
        .iter()
        .map(|binding| format!("{}:{}", binding.plugin.plugin, binding.plugin.version))
        .collect();
    Item {
        name: name(info),
        cells: vec![
            name(info),
            plugins.join(", "),
            units::show_instant(info.created),
        ],
        json: value(info),
    }
}

fn value(info: &ViewInfo) -> Value {
    json!({
        "kind": "view",
        "namespace": info.view.topic.namespace.as_str(),
        "name": name(info),
        "topic": info.view.topic.topic.as_str(),
        "view": info.view.view.as_str(),
        "created": units::show_instant(info.created),
        "bindings": info.bindings.iter().map(binding::value).collect::<Vec<_>>(),
    })
}
