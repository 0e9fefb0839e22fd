//! The key pair by which a server knows its client.

use core::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidegate_model::code;

use crate::Error;

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
/// A key file is never larger.
const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;
#[cfg(unix)]
const OWNER_ONLY: u32 = 0o600;
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
            .hint("`tidegate login ADDRESS --key-file FILE` makes one")
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

    /// Reads a file that holds what [`Self::to_pem`] wrote, at most 16 KiB.
    ///
    /// # Errors
    /// `FILE` if it can't be read, else as [`Self::from_pem`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let wrong = |error: &dyn fmt::Display| {
            Error::new(
                code::FILE,
                format!("can't read the client key {}: {error}", path.display()),
            )
        };
        let file = File::open(path).map_err(|error| wrong(&error))?;
        let mut pem = String::new();
        file.take(KEY_FILE_BYTES_MAX)
            .read_to_string(&mut pem)
            .map_err(|error| wrong(&error))?;
        Self::from_pem(&pem).map_err(|error| Error {
            message: format!("{}: {}", path.display(), error.message),
            ..error
        })
    }

    /// Writes [`Self::to_pem`] to a new file that its owner alone reads.
    ///
    /// # Errors
    /// `FILE` if it can't be written, or is there already.
    pub fn to_new_file(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let pem = self.to_pem()?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, OWNER_ONLY);
        options
            .open(path)
            .and_then(|mut file| {
                file.write_all(pem.as_bytes())?;
                file.sync_all()
            })
            .map_err(|error| {
                Error::new(
                    code::FILE,
                    format!("can't write the client key {}: {error}", path.display()),
                )
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
    fn a_key_file_is_new_and_its_owners_alone() {
        let folder = std::env::temp_dir().join(format!("tidegate-key-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("app.key");
        let key = ClientKey::generate().unwrap();
        key.to_new_file(&path).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(ClientKey::from_file(&path).unwrap().public(), key.public());
        assert_eq!(key.to_new_file(&path).unwrap_err().code, code::FILE);
        std::fs::write(&path, "no key").unwrap();
        let error = ClientKey::from_file(&path).unwrap_err();
        assert_eq!(error.code, code::INVALID_ARGUMENT);
        assert!(error.message.contains("app.key"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
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
