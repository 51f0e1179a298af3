//! TLS on both sides. The choices that both share (provider, versions, ALPN) are in [`provider`].

pub mod client;
pub mod provider;
pub mod server;
