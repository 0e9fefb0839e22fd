//! `tidegate plugin`.

mod build;
mod new;
mod sdk;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidegate_client::{DeployPlugin, PluginFailure, PluginInfo};

use crate::app::App;
use crate::confirm::Confirm;
use crate::connect::with_client;
use crate::failure::{Failure, Result};
use crate::output::{Column, Item};
use crate::units;

/// Plugins: WebAssembly components under a name and version
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Write the crate of a new filter, with the SDK in it; it builds anywhere
    New(new::Args),
    /// Make a component of a crate, or of a module that another tool built
    Build(build::Args),
    /// Upload a component; it is compiled and checked before this returns
    Deploy {
        /// The component, as `tidegate plugin build` writes it
        file: PathBuf,
        /// The plugin's name [default: the file's, without .wasm]
        #[arg(long)]
        name: Option<String>,
        /// The version; a version never changes
        #[arg(long)]
        version: String,
        /// Check the request and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List the plugin versions of the namespace
    #[command(visible_alias = "list")]
    Ls,
    /// Show a plugin version and what binds it
    Info {
        /// Name and version
        #[arg(value_name = "NAME:VERSION")]
        plugin: String,
    },
    /// Remove a plugin version that nothing binds
    #[command(visible_alias = "delete")]
    Rm {
        /// Name and version
        #[arg(value_name = "NAME:VERSION")]
        plugin: String,
        #[command(flatten)]
        confirm: Confirm,
    },
}

const COLUMNS: &[Column] = &[
    Column::text("plugin"),
    Column::text("version"),
    Column::number("size"),
    Column::text("bound to"),
    Column::text("deployed").wide(),
    Column::text("world").wide(),
    Column::text("digest").wide(),
];

pub(crate) async fn run(app: &mut App, command: Command) -> Result<()> {
    let namespace = app.namespace()?;
    match command {
        Command::New(args) => new::run(app, &args),
        Command::Build(args) => build::run(app, &args),
        Command::Deploy {
            file,
            name,
            version,
            dry_run,
        } => {
            let name = name.unwrap_or_else(|| stem(&file));
            let component =
                fs::read(&file).map_err(|error| Failure::file("read", &file, &error))?;
            let deploy = DeployPlugin {
                plugin: namespace.plugin_version(&name, &version)?,
                component: Bytes::from(component),
            };
            if dry_run {
                app.out.note(&format!(
                    "dry run, nothing changed: deploy {} as {}, {}",
                    file.display(),
                    deploy.plugin,
                    units::digest(&Sha256::digest(&deploy.component).into())
                ));
                return Ok(());
            }
            with_client(app, async |app, client| {
                let info = client.deploy_plugin(&deploy).await?;
                let name = name_of(&info);
                let sentence = format!("plugin {name} is there, {}", units::digest(&info.digest));
                app.out.done(&name, &sentence, &value(&info))
            })
            .await
        }
        Command::Ls => {
            with_client(app, async |app, client| {
                let plugins = client.plugins(&namespace.0).await?;
                let items: Vec<Item> = plugins.iter().map(item).collect();
                app.out.list("plugins", COLUMNS, &items)
            })
            .await
        }
        Command::Info { plugin } => {
            let plugin = namespace.plugin(&plugin)?;
            with_client(app, async |app, client| {
                let info = client.plugin(&plugin).await?;
                app.out.one(&name_of(&info), &fields(&info), &value(&info))
            })
            .await
        }
        Command::Rm { plugin, confirm } => {
            let plugin = namespace.plugin(&plugin)?;
            confirm.check(&format!("remove plugin {plugin}"))?;
            with_client(app, async |app, client| {
                let info = client.plugin(&plugin).await?;
                if confirm.asks(app, &format!("Remove plugin {plugin}?"))? {
                    client.remove_plugin(&plugin).await?;
                    let name = name_of(&info);
                    let value = json!({ "kind": "plugin", "name": name, "removed": true });
                    app.out
                        .done(&name, &format!("plugin {plugin} is removed"), &value)?;
                }
                Ok(())
            })
            .await
        }
    }
}

fn stem(file: &Path) -> String {
    file.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// `NAME:VERSION` without the namespace.
fn name_of(info: &PluginInfo) -> String {
    format!("{}:{}", info.plugin.plugin, info.plugin.version)
}

fn item(info: &PluginInfo) -> Item {
    Item {
        name: name_of(info),
        cells: vec![
            info.plugin.plugin.as_str().to_owned(),
            info.plugin.version.as_str().to_owned(),
            units::bytes(info.size),
            info.bound_to.join(", "),
            units::show_instant(info.deployed),
            info.world.clone(),
            units::digest(&info.digest),
        ],
        json: value(info),
    }
}

fn fields(info: &PluginInfo) -> Vec<(&'static str, String)> {
    vec![
        ("plugin", info.plugin.to_string()),
        ("world", info.world.clone()),
        ("size", units::bytes(info.size)),
        ("digest", units::digest(&info.digest)),
        ("deployed", units::show_instant(info.deployed)),
        ("bound to", info.bound_to.join("\n")),
        ("last failures", failures(info)),
    ]
}

/// One line a failure: when, on which message, how, and the plugin's words.
fn failures(info: &PluginInfo) -> String {
    let line = |failure: &PluginFailure| {
        format!(
            "{}  {} queue {} offset {} ({})  {}: {}",
            units::show_instant(failure.at),
            failure.topic,
            failure.queue_index,
            failure.offset,
            failure.message_id,
            failure.code,
            failure.message
        )
    };
    let lines: Vec<String> = info.failures.iter().map(line).collect();
    lines.join("\n")
}

fn failure_value(failure: &PluginFailure) -> Value {
    json!({
        "at": units::show_instant(failure.at),
        "code": failure.code.to_string(),
        "message": failure.message,
        "topic": failure.topic,
        "queue": failure.queue_index,
        "offset": failure.offset.0,
        "id": failure.message_id.to_string(),
    })
}

fn value(info: &PluginInfo) -> Value {
    json!({
        "kind": "plugin",
        "namespace": info.plugin.namespace.as_str(),
        "name": info.plugin.plugin.as_str(),
        "version": info.plugin.version.as_str(),
        "world": info.world,
        "size": info.size,
        "digest": units::digest(&info.digest),
        "deployed": units::show_instant(info.deployed),
        "bound_to": info.bound_to,
        "failures": info.failures.iter().map(failure_value).collect::<Vec<_>>(),
    })
}
