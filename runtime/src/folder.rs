//! Folders and files whose content is believed: nobody else may have put it there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

/// Makes the folder `path` with mode 0700, unless it is there.
///
/// # Errors
/// What is there is refused if it is a link, no folder, another user's, or open to group or others:
/// the error says which, and what to do. Else what the file system says.
pub fn private_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = fs::symlink_metadata(path)?;
    let mode = found.permissions().mode() & 0o7777;
    let own = geteuid().as_raw();
    if found.is_symlink() {
        return Err(refused(
            "it is a symbolic link: put the folder itself there".to_owned(),
        ));
    }
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if found.uid() != own {
        return Err(refused(format!(
            "it belongs to user {}, and the server runs as user {own}: what lies in it is believed, so give it to that user (`chown -R`), or move it away",
            found.uid()
        )));
    }
    if mode & 0o077 != 0 {
        return Err(refused(format!(
            "its mode is {mode:04o}, so others than its owner get at it: what lies in it is believed, so look whether it is yours, then `chmod 700` it"
        )));
    }
    Ok(())
}

/// Refuses a folder that somebody else may have filled: another user's, or one that group or others may
/// write. That they may read it is its owner's choice, and a link to it, too.
///
/// # Errors
/// Which it is, and what to do; else what the file system says.
pub fn check_own_folder(path: &Path) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let (mode, own) = (found.mode() & 0o7777, geteuid().as_raw());
    if found.uid() != own {
        return Err(refused(format!(
            "it belongs to user {}, and the server runs as user {own}: run it as that user, or give the folder to the server's (`chown -R`)",
            found.uid()
        )));
    }
    if mode & 0o022 != 0 {
        return Err(refused(format!(
            "its mode is {mode:04o}, so others than its owner may write there: look whether all in it is yours, then `chmod 700` it"
        )));
    }
    Ok(())
}

fn refused(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

/// Opens a file of such a folder to read it; a link is refused, and so is what is no file.
///
/// # Errors
/// What the file system says.
pub fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    Ok(file)
}

/// Makes a file in such a folder, with mode 0600. What has the name already is refused.
///
/// # Errors
/// What the file system says.
pub fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(flags(OFlags::NOFOLLOW))
        .open(path)
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_folder_that_others_may_have_filled_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("private");
        private_folder(&at).unwrap();
        assert_eq!(fs::metadata(&at).unwrap().mode() & 0o777, 0o700);
        private_folder(&at).unwrap();
        for mode in [0o701, 0o750, 0o770] {
            fs::set_permissions(&at, PermissionsExt::from_mode(mode)).unwrap();
            let error = private_folder(&at).unwrap_err().to_string();
            assert!(error.contains(&format!("mode is {mode:04o}")), "{error}");
        }
        let link = dir.path().join("link");
        symlink(&at, &link).unwrap();
        let error = private_folder(&link).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(private_folder(&file).is_err());
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused_and_one_that_they_may_read_is_not() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, is_ours) in [(0o700, true), (0o755, true), (0o775, false), (0o702, false)] {
            fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
            let checked = check_own_folder(dir.path()).map_err(|error| error.to_string());
            assert_eq!(checked.is_ok(), is_ours, "{mode:o}: {checked:?}");
            assert!(
                is_ours
                    || checked
                        .unwrap_err()
                        .contains(&format!("mode is {mode:04o}"))
            );
        }
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        create_private(&file).unwrap();
        assert!(create_private(&file).is_err());
        symlink(&file, &link).unwrap();
        open_private(&file).unwrap();
        assert!(open_private(&link).is_err());
        assert!(open_private(dir.path()).is_err());
    }
}
