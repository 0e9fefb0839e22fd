//! The keys of a node: made at first start, kept in the data folder, readable by its owner alone.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use tidegate_runtime::{create_private, open_private, private_folder};

/// Bytes of a secret key for MACs: one block of SHA-256's output.
pub const SECRET_BYTES: usize = 32;
/// A certificate for pinned clients has no name to check; this one says what it is.
const CERTIFICATE_NAME: &str = "tidegate";
/// A key file is never larger; a longer one is damaged.
const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Keys that identify a node to its clients, over restarts.
pub struct Identity {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// Its private key, PKCS#8 DER.
    pub private_key: Vec<u8>,
    /// `sha256:` and the hash of the public key (SPKI), base64url without padding.
    pub pin: String,
    /// Key of stateless resets: a restarted node can tell old connections that they are gone.
    pub reset_key: [u8; SECRET_BYTES],
    /// Key of receipt handles.
    pub receipt_key: [u8; SECRET_BYTES],
    /// The private key was made just now, so no client has this pin.
    pub is_new: bool,
}

/// Why the keys can't be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system refused.
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A key file is not what it should be.
    #[error(
        "key file {path} is damaged: {reason}; restore it from a backup, or move it away to make new keys (clients must then log in again)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Identity {
    /// Reads the keys below `folder`, making those that aren't there.
    ///
    /// # Errors
    /// [`IdentityError`] names the file.
    pub fn load_or_create(folder: &Path) -> Result<Self, IdentityError> {
        make_folder(folder)?;
        let key_path = folder.join("server.key");
        let (pem, is_new) = read_or_create(&key_path, || {
            // P-256: also browsers take it when they pin a certificate.
            KeyPair::generate()
                .map(|key| key.serialize_pem().into_bytes())
                .map_err(|e| e.to_string())
        })?;
        let damaged = |reason: String| IdentityError::Damaged {
            path: key_path.clone(),
            reason,
        };
        let pem = String::from_utf8(pem).map_err(|e| damaged(e.to_string()))?;
        let key = KeyPair::from_pem(&pem).map_err(|e| damaged(e.to_string()))?;
        // The key persists and is what clients pin; the certificate around it is made at each start.
        let certificate = CertificateParams::new(vec![CERTIFICATE_NAME.to_owned()])
            .and_then(|params| params.self_signed(&key))
            .map_err(|e| damaged(e.to_string()))?;
        let spki = digest::digest(&digest::SHA256, &key.subject_public_key_info());
        Ok(Self {
            certificate: certificate.der().to_vec(),
            private_key: key.serialize_der(),
            pin: format!("sha256:{}", URL_SAFE_NO_PAD.encode(spki)),
            reset_key: secret(&folder.join("reset.key"))?,
            receipt_key: secret(&folder.join("receipt.key"))?,
            is_new,
        })
    }
}

fn make_folder(folder: &Path) -> Result<(), IdentityError> {
    private_folder(folder).map_err(|source| IdentityError::Io {
        path: folder.to_owned(),
        source,
    })
}

/// The key of the MACs over compiled plugins, below `folder`, made if it isn't there. Who loses it
/// compiles anew.
///
/// # Errors
/// [`IdentityError`] names the file.
pub(crate) fn code_key(folder: &Path) -> Result<[u8; SECRET_BYTES], IdentityError> {
    make_folder(folder)?;
    secret(&folder.join("code.key"))
}

/// `N` random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system's random source answers");
    bytes
}

fn secret(path: &Path) -> Result<[u8; SECRET_BYTES], IdentityError> {
    let (bytes, _) = read_or_create(path, || Ok(random::<SECRET_BYTES>().to_vec()))?;
    bytes
        .as_slice()
        .try_into()
        .map_err(|_| IdentityError::Damaged {
            path: path.to_owned(),
            reason: format!("it has {} bytes instead of {SECRET_BYTES}", bytes.len()),
        })
}

/// Reads a file, or makes it whole: a temporary file is synced, then renamed. Says whether it was
/// made.
fn read_or_create(
    path: &Path,
    make: impl FnOnce() -> Result<Vec<u8>, String>,
) -> Result<(Vec<u8>, bool), IdentityError> {
    let io = |source| IdentityError::Io {
        path: path.to_owned(),
        source,
    };
    match open_private(path) {
        Ok(file) => {
            check_private(&file, path).map_err(io)?;
            let mut bytes = Vec::new();
            file.take(KEY_FILE_BYTES_MAX)
                .read_to_end(&mut bytes)
                .map_err(io)?;
            return Ok((bytes, false));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        Err(_) => {}
    }
    let bytes = make().map_err(|reason| IdentityError::Damaged {
        path: path.to_owned(),
        reason,
    })?;
    let temporary = path.with_extension("tmp");
    // What an interrupted start left.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let mut file = create_private(&temporary).map_err(io)?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_all())
        .map_err(io)?;
    fs::rename(&temporary, path).map_err(io)?;
    let folder = path.parent().expect("a key file lies in a folder");
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io)?;
    Ok((bytes, true))
}

/// Refuses a key file that somebody else may have put there, or may have read. The folder is the
/// server's own.
fn check_private(file: &File, path: &Path) -> io::Result<()> {
    let found = file.metadata()?;
    let folder = path.parent().expect("a key file lies in a folder");
    let (owner, own) = (found.uid(), fs::metadata(folder)?.uid());
    let refused = |reason| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    if owner != own {
        return refused(format!(
            "it belongs to user {owner}, and its folder to user {own}: look whether it is the key that was made here, then give it to that user (`chown`)"
        ));
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return refused(format!(
            "its mode is {mode:04o}, so others than its owner may know the key: `chmod 600` it if they don't, else move it away to make a new one (clients must then log in again)"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn keys_survive_a_restart_and_are_private() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("keys");
        let first = Identity::load_or_create(&folder).unwrap();
        let second = Identity::load_or_create(&folder).unwrap();
        assert_eq!(first.pin, second.pin);
        assert_eq!((first.is_new, second.is_new), (true, false));
        assert_eq!(first.receipt_key, second.receipt_key);
        assert_ne!(first.receipt_key, first.reset_key);
        for entry in fs::read_dir(&folder).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
    }

    #[test]
    fn keys_that_others_may_have_put_there_or_read_are_refused() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("keys");
        let first = Identity::load_or_create(&folder).unwrap();
        let said = || match Identity::load_or_create(&folder) {
            Ok(identity) => identity.pin,
            Err(error) => error.to_string(),
        };
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let key = folder.join("server.key");
        mode(&key, 0o640);
        assert!(
            said().contains("server.key: its mode is 0640"),
            "{}",
            said()
        );
        mode(&key, 0o600);
        mode(&folder, 0o755);
        assert!(said().contains("keys: its mode is 0755"), "{}", said());
        mode(&folder, 0o700);
        let elsewhere = data.path().join("elsewhere");
        fs::rename(&key, &elsewhere).unwrap();
        symlink(&elsewhere, &key).unwrap();
        assert!(said().contains("key file") && said() != first.pin);
        fs::remove_file(&key).unwrap();
        fs::rename(&elsewhere, &key).unwrap();
        assert_eq!(said(), first.pin);
        // What a start that was interrupted left.
        let reset = folder.join("reset.key");
        fs::rename(&reset, reset.with_extension("tmp")).unwrap();
        assert_eq!(said(), first.pin);
        assert!(reset.is_file());
    }

    #[test]
    fn a_damaged_key_is_named() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("keys");
        Identity::load_or_create(&folder).unwrap();
        fs::write(folder.join("receipt.key"), b"short").unwrap();
        let error = Identity::load_or_create(&folder).err().unwrap();
        assert!(error.to_string().contains("receipt.key"), "{error}");
    }
}
