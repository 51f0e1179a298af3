//! Why a name has no address.

use std::io;
use std::sync::Arc;

use hickory_resolver::net::NetError;

use crate::upstream::exhaustion::is_local_exhaustion;

/// Why a server's name has no address.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// The DNS query failed.
    #[error("its name could not be looked up: {0}")]
    Dns(#[from] NetError),
    /// The DNS reports that the name does not exist, and the system does not know it either.
    #[error("its name does not exist: {0}")]
    NotFound(Arc<io::Error>),
    /// No DNS server is configured, and the system's look-up failed.
    #[error("its name could not be looked up: {0}")]
    System(Arc<io::Error>),
    /// No answer came in time.
    #[error("its name could not be looked up in time")]
    Timeout,
}

impl ResolveError {
    /// Whether this process lacks descriptors or memory for a look-up.
    pub(in crate::upstream) fn is_local_exhaustion(&self) -> bool {
        match self {
            Self::Dns(NetError::Io(error)) | Self::NotFound(error) | Self::System(error) => is_local_exhaustion(error),
            Self::Dns(_) | Self::Timeout => false,
        }
    }
}
