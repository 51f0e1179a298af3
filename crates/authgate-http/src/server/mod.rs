//! The server side: listeners, workers, connections, and how they end.

pub mod address;
pub mod closing;
mod connection;
mod connection_permits;
mod context;
mod date;
pub mod handler;
mod http1;
mod http2;
pub mod inherited;
pub mod limits;
pub mod listen;
pub mod listener_handle;
mod proxy_protocol;
pub mod socket;
pub mod socket_file;
pub mod stage;
pub mod worker;
