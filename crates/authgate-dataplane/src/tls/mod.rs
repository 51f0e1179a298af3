//! TLS on both sides. The choices that both share (provider, versions) are in [`provider`].

pub mod certificate;
pub mod certificate_names;
pub mod client;
pub mod control;
pub mod managed;
mod pem;
pub mod provider;
pub mod server;
mod sessions;
mod ticket_keys;
mod tickets;
mod trust;
pub mod validity;

pub use self::pem::{Authorities, PemError, load_authorities};
pub use self::ticket_keys::{TICKETS_HELP, TicketKeys, TicketKeysError};
