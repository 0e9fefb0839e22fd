//! Why a node doesn't start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tidegate_model::{Code, code};
use tidegate_store::OpenError;

use crate::identity::IdentityError;

/// A node that doesn't start. Nothing in its data folder was changed that matters.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder can't be made.
    #[error("data folder {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log can't be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The keys can't be had.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The plugin host doesn't start.
    #[error("plugin host: {0}")]
    Plugins(String),
    /// An address can't be listened on.
    #[error("listen on {addr}: {reason}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// The address of the admin endpoint can't be listened on.
    #[error("serve health and metrics on {addr}: {source}")]
    Admin {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A thread can't be started.
    #[error("start a thread: {0}")]
    Thread(io::Error),
}

impl StartError {
    /// The number of the error, for `tidegate help`.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Store(OpenError::Version { .. }) => code::DATA_VERSION,
            Self::Store(OpenError::InUse { .. }) => code::DATA_IN_USE,
            Self::Store(OpenError::Corrupt { .. } | OpenError::Replay { .. })
            | Self::Identity(IdentityError::Damaged { .. }) => code::DATA_CORRUPT,
            Self::Store(OpenError::Config { .. }) => code::INVALID_ARGUMENT,
            Self::Folder { .. } | Self::Store(_) | Self::Identity(_) => code::FILE,
            Self::Listen { .. } | Self::Admin { .. } => code::INVALID_ARGUMENT,
            Self::Plugins(_) | Self::Thread(_) => code::INTERNAL,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Folder { .. } => {
                "choose a folder that is this user's and that only this user may write: --data DIR"
                    .to_owned()
            }
            Self::Listen { addr, .. } => {
                format!(
                    "stop what uses port {}, or choose another: --listen HOST:0",
                    addr.port()
                )
            }
            Self::Admin { .. } => "choose another address: --admin HOST:0".to_owned(),
            Self::Store(OpenError::InUse { .. }) => {
                "stop the other process, or choose another folder: --data DIR".to_owned()
            }
            Self::Store(OpenError::Corrupt { .. }) => {
                "see what `tidegate store repair DIR --dry-run` would do; where it mends nothing, \
                 `tidegate backup restore` makes a new folder of a backup"
                    .to_owned()
            }
            _ => format!("run `tidegate help {}`", self.code()),
        }
    }
}
