//! The key pair by which a server knows its client.

use core::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidegate_model::code;

use crate::Error;

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
/// Characters in a line of PEM (RFC 7468 section 2).
const PEM_LINE: usize = 64;

/// An Ed25519 key pair. Whoever holds it is the client: keep it in a file that only its owner reads.
#[derive(Clone)]
pub struct ClientKey {
    pair: Arc<Ed25519KeyPair>,
}

impl ClientKey {
    /// A new random key.
    ///
    /// # Errors
    /// `INTERNAL` if the system has no randomness to give.
    pub fn generate() -> Result<Self, Error> {
        let pair = Ed25519KeyPair::generate()
            .map_err(|_| Error::new(code::INTERNAL, "no key could be made"))?;
        Ok(Self {
            pair: Arc::new(pair),
        })
    }

    /// The key as a PKCS #8 document in PEM (RFC 5958, RFC 7468).
    ///
    /// # Errors
    /// `INTERNAL` if the document can't be written.
    pub fn to_pem(&self) -> Result<String, Error> {
        let document = self
            .pair
            .to_pkcs8()
            .map_err(|_| Error::new(code::INTERNAL, "the client key can't be written"))?;
        let text = STANDARD.encode(document.as_ref());
        let mut pem = String::with_capacity(text.len() + 128);
        pem.push_str(PEM_BEGIN);
        pem.push('\n');
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, left) = rest.split_at(rest.len().min(PEM_LINE));
            pem.push_str(line);
            pem.push('\n');
            rest = left;
        }
        pem.push_str(PEM_END);
        pem.push('\n');
        Ok(pem)
    }

    /// Reads what [`Self::to_pem`] wrote.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if the text is no Ed25519 key in PKCS #8.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::new(
                code::INVALID_ARGUMENT,
                "the client key is no Ed25519 key in PKCS #8 PEM",
            )
            .hint("`tidegate login ADDRESS` makes a new one")
        };
        let text = pem
            .split_once(PEM_BEGIN)
            .and_then(|(_, rest)| rest.split_once(PEM_END))
            .map(|(text, _)| text.split_ascii_whitespace().collect::<String>())
            .ok_or_else(wrong)?;
        let document = STANDARD.decode(text).map_err(|_| wrong())?;
        let pair = Ed25519KeyPair::from_pkcs8(&document).map_err(|_| wrong())?;
        Ok(Self {
            pair: Arc::new(pair),
        })
    }

    /// The public key, 32 bytes (RFC 8032).
    ///
    /// # Panics
    /// Never: an Ed25519 public key has 32 bytes.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.pair
            .public_key()
            .as_ref()
            .try_into()
            .expect("an Ed25519 public key has 32 bytes")
    }

    /// An Ed25519 signature over `message`.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair
            .sign(message)
            .as_ref()
            .try_into()
            .expect("an Ed25519 signature has 64 bytes")
    }
}

impl fmt::Debug for ClientKey {
    /// The public half alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKey")
            .field("public", &STANDARD.encode(self.public()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::AsBigEndian as _;
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    #[test]
    fn a_key_survives_its_file() {
        let key = ClientKey::generate().unwrap();
        let again = ClientKey::from_pem(&key.to_pem().unwrap()).unwrap();
        assert_eq!(key.public(), again.public());
        let signature = again.sign(b"exported");
        UnparsedPublicKey::new(&ED25519, key.public())
            .verify(b"exported", &signature)
            .unwrap();
    }

    #[test]
    fn other_text_is_refused_and_nothing_secret_is_printed() {
        for text in [
            "",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            assert_eq!(
                ClientKey::from_pem(text).unwrap_err().code,
                code::INVALID_ARGUMENT
            );
        }
        let key = ClientKey::generate().unwrap();
        let debug = format!("{key:?}");
        let secret = STANDARD.encode(key.pair.seed().unwrap().as_be_bytes().unwrap().as_ref());
        assert!(!debug.contains(&secret[..16]));
    }
}
