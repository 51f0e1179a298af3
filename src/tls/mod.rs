//! TLS on both sides. The choices that both share (provider, versions, ALPN) are in [`provider`].

pub mod client;
mod pem;
pub mod provider;
pub mod server;

pub use self::pem::{PemError, load_authorities};
