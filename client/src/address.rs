//! Where a server is and which key it must show.

use core::fmt;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tidegate_model::code;

use crate::Error;

const SCHEME: &str = "tidegate://";
const PIN_PREFIX: &str = "sha256:";
const PIN_PARAMETER: &str = "pin=sha256:";

/// SHA-256 of the `SubjectPublicKeyInfo` (RFC 5280 section 4.1, whole DER element) of a server's
/// certificate. It pins the key, so certificates may be renewed under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

impl fmt::Display for Pin {
    /// `sha256:` and 43 characters of URL-safe base64 without padding (RFC 4648 section 5).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl FromStr for Pin {
    type Err = Error;

    /// Reads what [`Pin`] displays.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix(PIN_PREFIX)
            .and_then(|pin| URL_SAFE_NO_PAD.decode(pin).ok())
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| {
                Error::new(
                    code::ADDRESS,
                    format!(
                        "{text:?} is no pin: it is not sha256: and 32 bytes in URL-safe base64"
                    ),
                )
            })
    }
}

/// A server's address, as it prints it: `tidegate://HOST:PORT?pin=sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The UDP port.
    pub port: u16,
    /// The key that the server must prove to hold.
    pub pin: Pin,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{SCHEME}[{}]:{}?pin={}", self.host, self.port, self.pin)
        } else {
            write!(f, "{SCHEME}{}:{}?pin={}", self.host, self.port, self.pin)
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |what: &str| {
            Error::new(
                code::ADDRESS,
                format!("{text:?} is no server address: {what}"),
            )
            .hint("copy the line that the server printed when it started: tidegate://HOST:PORT?pin=sha256:…")
        };
        let rest = text
            .trim()
            .strip_prefix(SCHEME)
            .ok_or_else(|| wrong("it doesn't begin with tidegate://"))?;
        let (authority, query) = rest
            .split_once('?')
            .ok_or_else(|| wrong("it has no ?pin="))?;
        let (host, port) = authority
            .trim_end_matches('/')
            .rsplit_once(':')
            .ok_or_else(|| wrong("it has no port"))?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner
                .strip_suffix(']')
                .ok_or_else(|| wrong("the bracket of its host isn't closed"))?,
            None if host.contains(':') => return Err(wrong("an IPv6 host stands in brackets")),
            None => host,
        };
        if host.is_empty() {
            return Err(wrong("it has no host"));
        }
        let port = port
            .parse()
            .ok()
            .filter(|&port| port != 0)
            .ok_or_else(|| wrong("its port is no number from 1 to 65535"))?;
        let pin = query
            .split('&')
            .find_map(|parameter| parameter.strip_prefix(PIN_PARAMETER))
            .ok_or_else(|| wrong("it has no pin=sha256:"))?;
        let pin = URL_SAFE_NO_PAD
            .decode(pin)
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or_else(|| wrong("its pin is not 32 bytes in URL-safe base64"))?;
        Ok(Self {
            host: host.to_owned(),
            port,
            pin: Pin(pin),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_reads() {
        let pin = Pin([0xA5; 32]);
        for (host, text) in [
            ("127.0.0.1", format!("tidegate://127.0.0.1:4433?pin={pin}")),
            ("::1", format!("tidegate://[::1]:4433?pin={pin}")),
            (
                "broker.example",
                format!("tidegate://broker.example:4433?pin={pin}"),
            ),
        ] {
            let address = Address {
                host: host.to_owned(),
                port: 4433,
                pin,
            };
            assert_eq!(address.to_string(), text);
            assert_eq!(text.parse::<Address>(), Ok(address));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let pin = Pin([1; 32]);
        for (text, part) in [
            ("127.0.0.1:4433".to_owned(), "begin"),
            ("tidegate://127.0.0.1:4433".to_owned(), "?pin="),
            (format!("tidegate://127.0.0.1?pin={pin}"), "port"),
            (format!("tidegate://127.0.0.1:0?pin={pin}"), "port"),
            (format!("tidegate://:4433?pin={pin}"), "host"),
            (format!("tidegate://::1:4433?pin={pin}"), "brackets"),
            (format!("tidegate://[::1:4433?pin={pin}"), "bracket"),
            ("tidegate://h:1?pin=sha256:abcd".to_owned(), "32 bytes"),
            ("tidegate://h:1?pin=md5:abcd".to_owned(), "pin=sha256"),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.code, code::ADDRESS);
            assert!(error.message.contains(part), "{text}: {}", error.message);
        }
    }
}
