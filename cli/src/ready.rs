//! The ready file: there while a broker is ready. It may hold the root token, so it is made where
//! nobody else can have put something in its way.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde_json::json;
use tidegate_server::Server;

use crate::failure::{Failure, Result};
use crate::output::API_VERSION;

const OWNER_ONLY: u32 = 0o600;

/// Written beside and moved into place: whoever sees the file sees all of it.
pub(crate) fn write(file: &Path, server: &Server) -> Result<()> {
    let ready = json!({
        "apiVersion": API_VERSION,
        "kind": "ready",
        "address": server.address(),
        "admin": server.admin_addr().to_string(),
        "root_token": server.root_token().map(|(token, _)| token),
        "pid": std::process::id(),
    });
    put(file, &format!("{ready}\n"))
}

fn put(file: &Path, text: &str) -> Result<()> {
    let beside = beside(file);
    // That of a start which was killed meanwhile.
    remove(&beside)?;
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).expect("a flag of the system");
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(OWNER_ONLY)
        .custom_flags(flags)
        .open(&beside)
        .and_then(|mut out| out.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, file))
        .map_err(|error| Failure::file("write", file, &error))
}

fn beside(file: &Path) -> PathBuf {
    let mut beside = OsString::from(file);
    beside.push(".new");
    beside.into()
}

/// A ready file that is there says that a broker is. Only one of this user's is removed: a link or
/// somebody else's file is not one of an earlier run.
pub(crate) fn remove(file: &Path) -> Result<()> {
    let found = match fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::file("remove", file, &error)),
        Ok(found) => found,
    };
    if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() {
        let what = "it is no plain file of this user, so no broker left it here";
        return Err(Failure::file("use", file, &what)
            .hint("remove it, or name another file: --ready-file FILE"));
    }
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::file("remove", file, &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn it_is_its_owners_alone_and_replaces_that_of_an_earlier_run() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ready.json");
        fs::write(&file, "old").unwrap();
        fs::write(beside(&file), "half").unwrap();
        remove(&file).unwrap();
        put(&file, "new\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new\n");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        remove(&file).unwrap();
        remove(&file).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_in_its_way_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (file, target) = (
            folder.path().join("ready.json"),
            folder.path().join("target"),
        );
        fs::write(&target, "precious").unwrap();
        for link in [file.clone(), beside(&file)] {
            symlink(&target, &link).unwrap();
            let failed = remove(&file).and_then(|()| put(&file, "token"));
            let Err(Failure::Error(report)) = failed else {
                panic!("{} was written over a link", file.display());
            };
            assert!(report.what.contains("ready.json"), "{}", report.what);
            assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
            fs::remove_file(&link).unwrap();
        }
        put(&file, "token").unwrap();
    }
}
