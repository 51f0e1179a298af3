//! The HTTP client for identity providers: it gets documents, and posts forms.
//!
//! A provider decides who may come in, so this client is strict: https only, apart from loopback addresses; no redirects; bodies of at most
//! [`MAX_BODY`]; one deadline for connecting, TLS, the request and the body. The content type of a response is ignored: the reader of the
//! body decides. `HTTPS_PROXY` and `NO_PROXY` are obeyed.
//!
//! It knows nothing of keys and tokens.

mod client;
pub mod discovery;
mod error;
mod max_age;
mod url;

use std::fmt;
use std::sync::Arc;

use rustls::ClientConfig;

pub use self::client::{Document, HttpClient, MAX_BODY, Proxies};
pub use self::error::FetchError;
pub use self::url::{FetchUrl, UrlProblem};

/// TLS to identity providers.
#[derive(Clone)]
pub struct FetchTls {
    /// Roots and versions. The client sets the protocols of ALPN.
    pub config: Arc<ClientConfig>,
    /// A hash of everything that `config` was made from.
    pub made_from: [u8; 32],
}

impl fmt::Debug for FetchTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchTls").finish_non_exhaustive()
    }
}

/// Equal ones trust the same certificates.
impl PartialEq for FetchTls {
    fn eq(&self, other: &Self) -> bool {
        self.made_from == other.made_from
    }
}

impl Eq for FetchTls {}
