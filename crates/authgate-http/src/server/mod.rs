//! The server side: listeners, workers, connections, and how they end.

pub mod closing;
mod connection;
mod context;
mod date;
pub mod handler;
mod http1;
mod http2;
pub mod limits;
pub mod listen;
mod proxy_protocol;
pub mod socket;
pub mod socket_file;
pub mod stage;
pub mod worker;
