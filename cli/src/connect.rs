//! From a context to a connection.

use std::env;
use std::net::IpAddr;
use std::time::Duration;

use tidegate_client::{
    Address, Client, ClientConfig, ClientKey, ConnectOptions, KEY_FILE_VARIABLE, KEY_VARIABLE,
};

use crate::app::App;
use crate::context::Store;
use crate::failure::Result;

/// Largest UDP payload on loopback, whose MTU is 65,536: fewer packets, half the work.
const LOOPBACK_MTU: u16 = 6000;

/// Connects to the server that options, environment or the context in use name.
async fn connect(app: &mut App, outage_max: Duration) -> Result<Client> {
    if has_environment(app) {
        return of_environment(app.global.server.as_deref(), outage_max).await;
    }
    let store = Store::find()?;
    if store.is_exposed() {
        app.out.warn(&format!(
            "{} can be read by others: chmod 600 it",
            store.path().display()
        ));
    }
    let (name, context) = store.named_or_current(app.global.context.as_deref())?;
    let (address, said) = match app.global.server.as_deref() {
        Some(address) => (address, "--server or TIDEGATE_SERVER".to_owned()),
        None => (context.address.as_str(), format!("context {name}")),
    };
    open_for(address, &context.key, outage_max)
        .await
        .map_err(|failure| failure.because(format!("{said} names {address}")))
}

/// The address that [`connect`] goes to, for whoever is to go there too.
pub(crate) fn address(app: &App) -> Result<String> {
    if let Some(address) = &app.global.server {
        return Ok(address.clone());
    }
    if has_environment(app) {
        return Ok(ClientConfig::from_env()?.address.to_string());
    }
    let (_, context) = Store::find()?.named_or_current(app.global.context.as_deref())?;
    Ok(context.address)
}

/// Whether the environment has a key, which counts unless a context is named.
fn has_environment(app: &App) -> bool {
    let has_key = [KEY_VARIABLE, KEY_FILE_VARIABLE]
        .iter()
        .any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
    has_key && app.global.context.is_none()
}

/// As an application does, which has no contexts.
async fn of_environment(server: Option<&str>, outage_max: Duration) -> Result<Client> {
    let mut config = match server {
        Some(address) => ClientConfig::new(address.parse()?, ClientKey::from_env()?),
        None => ClientConfig::from_env()?,
    };
    config.options = ConnectOptions {
        reconnect_timeout: outage_max,
        ..options(&config.address)
    };
    Ok(config.connect().await?)
}

/// Connects with a key to the server at an address with a pin.
pub(crate) async fn open(address: &str, key: &str) -> Result<Client> {
    open_for(address, key, ConnectOptions::default().reconnect_timeout).await
}

async fn open_for(address: &str, key: &str, outage_max: Duration) -> Result<Client> {
    let address: Address = address.parse()?;
    let key = ClientKey::from_pem(key)?;
    let options = ConnectOptions {
        reconnect_timeout: outage_max,
        ..options(&address)
    };
    Ok(Client::connect(&address, &key, options).await?)
}

fn options(address: &Address) -> ConnectOptions {
    let loopback = address
        .host
        .parse::<IpAddr>()
        .is_ok_and(|ip| ip.is_loopback());
    let mut options = ConnectOptions::default();
    if loopback {
        options.mtu_upper_bound = LOOPBACK_MTU;
    }
    options
}

/// Connects, works, and closes the connection whatever became of the work.
pub(crate) async fn with_client<T>(
    app: &mut App,
    work: impl AsyncFnOnce(&mut App, &Client) -> Result<T>,
) -> Result<T> {
    with_client_for(app, ConnectOptions::default().reconnect_timeout, work).await
}

/// As [`with_client`]; a connection that breaks is tried to be made anew for `outage_max`.
pub(crate) async fn with_client_for<T>(
    app: &mut App,
    outage_max: Duration,
    work: impl AsyncFnOnce(&mut App, &Client) -> Result<T>,
) -> Result<T> {
    let client = connect(app, outage_max).await?;
    let result = work(app, &client).await;
    client.close().await;
    result
}
