//! The file that keeps contexts: one, so that no context's name becomes a path.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::missing;
use crate::failure::{Failure, Result};

const FILE: &str = "contexts.toml";
const LOCK: &str = "contexts.lock";
const OWNER_ONLY_FILE: u32 = 0o600;
const OWNER_ONLY_FOLDER: u32 = 0o700;
const OTHERS: u32 = 0o077;

/// A server and the client that this machine is to it. Not `Debug`: it holds a secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// As the server printed it, with its pin.
    pub(crate) address: String,
    /// The name under which the server knows the key.
    pub(crate) client: String,
    /// The private key, PKCS #8 in PEM.
    pub(crate) key: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, Context>,
}

/// The contexts of this machine's user.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

/// Holds other writers off until it is dropped.
pub(crate) struct Locked<'a> {
    store: &'a Store,
    contents: Contents,
    _lock: File,
}

impl Store {
    /// Below `TIDEGATE_HOME`, else `XDG_CONFIG_HOME`, else `~/.config`.
    pub(crate) fn find() -> Result<Self> {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let folder = match (set("TIDEGATE_HOME"), set("XDG_CONFIG_HOME"), set("HOME")) {
            (Some(home), _, _) => PathBuf::from(home),
            (None, Some(config), _) => Path::new(&config).join("tidegate"),
            (None, None, Some(home)) => Path::new(&home).join(".config/tidegate"),
            (None, None, None) => {
                return Err(Failure::usage("there is no folder for contexts")
                    .because("neither TIDEGATE_HOME, XDG_CONFIG_HOME nor HOME is set")
                    .hint("export TIDEGATE_HOME=/a/folder/of/yours"));
            }
        };
        Ok(Self::at(folder))
    }

    pub(crate) fn at(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Every context by name, and the one in use.
    pub(crate) fn all(&self) -> Result<(BTreeMap<String, Context>, Option<String>)> {
        let contents = self.read()?;
        Ok((contents.context, contents.current))
    }

    pub(crate) fn named(&self, name: &str) -> Result<Context> {
        self.read()?
            .context
            .remove(name)
            .ok_or_else(|| missing(Some(name)))
    }

    pub(crate) fn named_or_current(&self, name: Option<&str>) -> Result<(String, Context)> {
        let mut contents = self.read()?;
        let name = name
            .map(str::to_owned)
            .or(contents.current)
            .ok_or_else(|| missing(None))?;
        let context = contents
            .context
            .remove(&name)
            .ok_or_else(|| missing(Some(&name)))?;
        Ok((name, context))
    }

    /// Makes a context the one in use, by default the one before; gives its name.
    pub(crate) fn choose(&self, name: Option<&str>) -> Result<String> {
        let mut locked = self.lock()?;
        let name = match (name, &locked.contents.previous) {
            (Some(name), _) => name.to_owned(),
            (None, Some(previous)) => previous.clone(),
            (None, None) => {
                return Err(missing(None).because("no other context was in use before"));
            }
        };
        if !locked.contents.context.contains_key(&name) {
            return Err(missing(Some(&name)));
        }
        locked.contents.choose(&name);
        locked.write()?;
        Ok(name)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let mut locked = self.lock()?;
        let contents = &mut locked.contents;
        contents
            .context
            .remove(name)
            .ok_or_else(|| missing(Some(name)))?;
        for chosen in [&mut contents.current, &mut contents.previous] {
            if chosen.as_deref() == Some(name) {
                *chosen = None;
            }
        }
        locked.write()
    }

    /// Others who want to write wait until the result is dropped.
    pub(crate) fn lock(&self) -> Result<Locked<'_>> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(OWNER_ONLY_FOLDER)
            .create(&self.folder);
        made.map_err(|error| Failure::file("make the folder", &self.folder, &error))?;
        let path = self.folder.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(OWNER_ONLY_FILE)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|error| Failure::file("lock", &path, &error))?;
        Ok(Locked {
            store: self,
            contents: self.read()?,
            _lock: lock,
        })
    }

    /// Whether others than the owner can read the file, and with it the keys.
    pub(crate) fn is_exposed(&self) -> bool {
        fs::metadata(self.path()).is_ok_and(|meta| meta.permissions().mode() & OTHERS != 0)
    }

    fn read(&self) -> Result<Contents> {
        let path = self.path();
        match fs::read_to_string(&path) {
            // The error of the TOML parser quotes the line, which may be a key: it isn't shown.
            Ok(text) => toml::from_str(&text).map_err(|error: toml::de::Error| {
                Failure::file("read", &path, &error.message())
                    .hint("mend or remove the file, then run `tidegate login ADDRESS`")
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Contents::default()),
            Err(error) => Err(Failure::file("read", &path, &error)),
        }
    }
}

impl Contents {
    fn choose(&mut self, name: &str) {
        if self.current.as_deref() != Some(name) {
            self.previous = self.current.replace(name.to_owned());
        }
    }
}

impl Locked<'_> {
    /// Adds a context, in place of one of the same name, and makes it the one in use.
    pub(crate) fn insert(mut self, name: &str, context: Context) -> Result<()> {
        self.contents.context.insert(name.to_owned(), context);
        self.contents.choose(name);
        self.write()
    }

    /// Writes beside the file, then over it: a crash leaves the old contexts or the new ones.
    fn write(&self) -> Result<()> {
        let path = self.store.path();
        let beside = self.store.folder.join(format!("{FILE}.new"));
        let text = toml::to_string(&self.contents).expect("contexts are text");
        let written = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(OWNER_ONLY_FILE)
            .open(&beside)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&beside, &path));
        written.map_err(|error| Failure::file("write", &path, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_model::code;

    fn context(client: &str) -> Context {
        Context {
            address: "tidegate://127.0.0.1:4433?pin=sha256:x".to_owned(),
            client: client.to_owned(),
            key: "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n".to_owned(),
        }
    }

    fn code_of<T>(result: Result<T>) -> Option<tidegate_model::Code> {
        match result {
            Err(Failure::Error(report)) => report.code,
            _ => panic!("no error"),
        }
    }

    #[test]
    fn contexts_come_and_go_and_the_last_two_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("new/home"));
        assert_eq!(
            code_of(store.named_or_current(None)),
            Some(code::CONTEXT_NOT_FOUND)
        );
        store.lock().unwrap().insert("a", context("ann")).unwrap();
        store.lock().unwrap().insert("b", context("bob")).unwrap();
        assert_eq!(store.named_or_current(None).unwrap().0, "b");
        assert_eq!(store.named_or_current(Some("a")).unwrap().1.client, "ann");
        assert_eq!(store.choose(None).unwrap(), "a");
        assert_eq!(store.choose(None).unwrap(), "b");
        assert_eq!(store.choose(Some("b")).unwrap(), "b");
        assert_eq!(store.choose(None).unwrap(), "a");
        store.remove("b").unwrap();
        assert_eq!(code_of(store.choose(None)), Some(code::CONTEXT_NOT_FOUND));
        assert_eq!(code_of(store.remove("b")), Some(code::CONTEXT_NOT_FOUND));
        assert_eq!(store.named_or_current(None).unwrap().0, "a");
        assert_eq!(store.named("a").unwrap().key, context("ann").key);
    }

    #[test]
    fn only_the_owner_reads_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("home"));
        store.lock().unwrap().insert("a", context("ann")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.path()), 0o600);
        assert_eq!(mode(&folder.path().join("home")), 0o700);
        assert!(!store.is_exposed());
        fs::set_permissions(store.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(store.is_exposed());
    }

    #[test]
    fn a_broken_file_is_named_and_no_secret_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        fs::write(store.path(), "[context.a]\nkey = \"secret\nclient = 3").unwrap();
        let Err(Failure::Error(report)) = store.all() else {
            panic!("a broken file was read");
        };
        assert_eq!(report.code, Some(code::FILE));
        assert!(report.what.contains("contexts.toml"), "{}", report.what);
        assert!(!format!("{report:?}").contains("secret"), "{report:?}");
    }
}
