//! A data folder that no broker has open: what `tidegate store` looks at.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_model::{Code, code};
use tidegate_store::check::{CheckError, Offline};
use tidegate_store::{OpenError, RealVfs};

/// Where the log lies in a data folder.
pub(crate) const LOG_FOLDER: &str = "log";
/// Where plugins' components lie in a data folder.
pub(crate) const COMPONENT_FOLDER: &str = "components";

/// Why a data folder can't be looked at or repaired.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct OfflineError(#[from] CheckError);

impl OfflineError {
    /// The number of the error, for `tidegate help`.
    #[must_use]
    pub fn code(&self) -> Code {
        match &self.0 {
            CheckError::Open(OpenError::Version { .. }) | CheckError::Newer { .. } => {
                code::DATA_VERSION
            }
            CheckError::Open(OpenError::InUse { .. }) => code::DATA_IN_USE,
            CheckError::Unreadable { .. } | CheckError::Open(OpenError::Corrupt { .. }) => {
                code::DATA_CORRUPT
            }
            CheckError::NoSuchFile { .. } | CheckError::NotUndone { .. } => code::INVALID_ARGUMENT,
            CheckError::NoStore { .. } | CheckError::Open(_) => code::FILE,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match &self.0 {
            CheckError::Open(OpenError::InUse { .. }) => {
                "stop the broker first, or look at a copy of the folder".to_owned()
            }
            CheckError::NoStore { .. } => {
                "name the folder that `tidegate serve --data` has".to_owned()
            }
            CheckError::NoSuchFile { .. } => "tidegate store verify FOLDER -o wide".to_owned(),
            _ => format!("tidegate help {}", self.code()),
        }
    }
}

/// Opens the log of a data folder, without changing anything.
///
/// # Errors
/// [`OfflineError`], above all while a broker has it open.
pub fn open_offline(data: &Path) -> Result<Offline, OfflineError> {
    Ok(Offline::open(Arc::new(RealVfs), &log_folder(data))?)
}

fn log_folder(data: &Path) -> PathBuf {
    data.join(LOG_FOLDER)
}
