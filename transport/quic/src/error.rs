//! Why a listener doesn't start.

use std::io;
use std::net::SocketAddr;

use tidegate_model::{Code, code};

/// Why a listener doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address can't be bound.
    #[error("UDP {addr} can't be bound: {source}; choose another address, or stop what holds it")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// Certificate or key are unusable.
    #[error("the server's identity can't be used: {0}")]
    Identity(String),
    /// A setting is out of bounds.
    #[error("{name} is {value}; it must be {min} to {max}")]
    Config {
        /// Name of the setting.
        name: &'static str,
        /// What it is.
        value: u64,
        /// Lowest value, inclusive.
        min: u64,
        /// Highest value, inclusive.
        max: u64,
    },
}

impl Error {
    /// Its code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Bind { .. } | Self::Config { .. } => code::INVALID_ARGUMENT,
            Self::Identity(_) => code::DATA_CORRUPT,
        }
    }
}
