//! Where to connect and as whom, as an application is told it.

use std::env;
use std::ffi::OsString;

use tidegate_model::code;

use crate::{Address, Client, ClientKey, ConnectOptions, Error};

/// The server's address.
pub const ADDRESS_VARIABLE: &str = "TIDEGATE_ADDRESS";
/// The client key itself, in PEM.
pub const KEY_VARIABLE: &str = "TIDEGATE_KEY";
/// A file with the client key, in PEM.
pub const KEY_FILE_VARIABLE: &str = "TIDEGATE_KEY_FILE";

/// What an application needs to connect.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The server.
    pub address: Address,
    /// Who the application is to it.
    pub key: ClientKey,
    /// How to connect.
    pub options: ConnectOptions,
}

impl ClientConfig {
    /// With the default options.
    #[must_use]
    pub fn new(address: Address, key: ClientKey) -> Self {
        Self {
            address,
            key,
            options: ConnectOptions::default(),
        }
    }

    /// From the environment: `TIDEGATE_ADDRESS`, and `TIDEGATE_KEY_FILE` or `TIDEGATE_KEY`. A variable
    /// that is empty counts as not set.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` names the variable that is missing, or is set beside its other; `ADDRESS` and
    /// what [`ClientKey::from_file`] says of what they hold.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| env::var_os(name))
    }

    fn from_variables(get: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let address = set(&get, ADDRESS_VARIABLE)?.ok_or_else(|| {
            Error::new(
                code::INVALID_ARGUMENT,
                format!("{ADDRESS_VARIABLE} is not set"),
            )
            .hint("set it to the address that `tidegate serve` prints: tidegate://HOST:PORT?pin=sha256:…")
        })?;
        Ok(Self::new(address.parse()?, key_of(&get)?))
    }

    /// Connects: [`Client::connect`].
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect(&self) -> Result<Client, Error> {
        Client::connect(&self.address, &self.key, self.options).await
    }
}

impl ClientKey {
    /// From the environment: the file that `TIDEGATE_KEY_FILE` names, or `TIDEGATE_KEY` itself.
    ///
    /// # Errors
    /// As [`ClientConfig::from_env`].
    pub fn from_env() -> Result<Self, Error> {
        key_of(&|name| env::var_os(name))
    }
}

fn key_of(get: &impl Fn(&str) -> Option<OsString>) -> Result<ClientKey, Error> {
    match (set(get, KEY_FILE_VARIABLE)?, set(get, KEY_VARIABLE)?) {
        (Some(path), None) => ClientKey::from_file(path),
        (None, Some(pem)) => ClientKey::from_pem(&pem).map_err(|error| Error {
            message: format!("{KEY_VARIABLE}: {}", error.message),
            ..error
        }),
        (None, None) => Err(Error::new(
            code::INVALID_ARGUMENT,
            format!("neither {KEY_FILE_VARIABLE} nor {KEY_VARIABLE} is set"),
        )
        .hint("`tidegate login ADDRESS --key-file FILE` makes a key for an application")),
        (Some(_), Some(_)) => Err(Error::new(
            code::INVALID_ARGUMENT,
            format!("{KEY_FILE_VARIABLE} and {KEY_VARIABLE} are both set"),
        )
        .hint("unset one of them")),
    }
}

/// The text of a variable that is set and not empty.
fn set(get: &impl Fn(&str) -> Option<OsString>, name: &str) -> Result<Option<String>, Error> {
    get(name)
        .filter(|value| !value.is_empty())
        .map(|value| {
            value.into_string().map_err(|_| {
                Error::new(code::INVALID_ARGUMENT, format!("{name} is not UTF-8 text"))
            })
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pin;
    use std::collections::HashMap;

    fn read(variables: &[(&str, &str)]) -> Result<ClientConfig, Error> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        ClientConfig::from_variables(|name| variables.get(name).map(Into::into))
    }

    #[test]
    fn address_and_key_come_from_the_environment() {
        let key = ClientKey::generate().unwrap();
        let pem = key.to_pem().unwrap();
        let address = format!("tidegate://broker.example:4433?pin={}", Pin([3; 32]));
        let config = read(&[(ADDRESS_VARIABLE, &address), (KEY_VARIABLE, &pem)]).unwrap();
        assert_eq!(config.address.to_string(), address);
        assert_eq!(config.key.public(), key.public());
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let address = format!("tidegate://broker.example:4433?pin={}", Pin([3; 32]));
        let with = |more: &[(&str, &str)]| {
            let mut all = vec![(ADDRESS_VARIABLE, address.as_str())];
            all.extend(more);
            read(&all).unwrap_err().message
        };
        let missing = read(&[]).unwrap_err().message;
        assert!(missing.contains(ADDRESS_VARIABLE), "{missing}");
        for (variables, named) in [
            (&[][..], KEY_FILE_VARIABLE),
            (&[(KEY_VARIABLE, "")], KEY_VARIABLE),
            (&[(KEY_VARIABLE, "no key")], KEY_VARIABLE),
            (&[(KEY_FILE_VARIABLE, "/nowhere/key")], "/nowhere/key"),
            (&[(KEY_VARIABLE, "a"), (KEY_FILE_VARIABLE, "b")], "both set"),
        ] {
            let message = with(variables);
            assert!(message.contains(named), "{message}");
        }
    }
}
