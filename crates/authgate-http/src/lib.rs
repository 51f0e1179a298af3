//! The HTTP engine of authgate: reading, framing and sending HTTP/1, driving h2, sockets, workers, and connections to upstream servers.
//!
//! The engine answers requests with a [`Handler`](server::handler::Handler), and sends requests with an
//! [`Upstream`](upstream::Upstream). It knows nothing of authentication, routes or configuration files.
//!
//! A module imports only from its own floor and the floors below it in this map. A test of the gateway reads the map and reports every
//! `use crate::` that breaks the rule.
//!
//! ```text
//! -- 3  fuzzing
//! fuzzing        one function for each reader of untrusted bytes
//! -- 2  the two sides
//! server         clients: sockets, workers, connections, deadlines, drain; knows its handler only by a trait
//! upstream       servers: pools, health, retries; every request goes through Upstream::forward
//! -- 1  parts
//! transfer       message transfer: request bodies, and writing HTTP/1 to a connection
//! tcp            TCP socket options for every connection
//! lockfile       locks a file for one process at a time
//! runtime        helpers for single-threaded runtimes: hyper tasks, and replay of bytes that were read ahead
//! -- 0  words and rules: pure; no async, no I/O
//! framing        the framing of HTTP/1 messages, and the bytes that are allowed in them
//! alpn           the names of HTTP versions in ALPN
//! node           the other end of a connection
//! concurrency    concurrency limits
//! log_throttle   limits how often the same event is logged
//! ```

pub mod alpn;
pub mod concurrency;
pub mod framing;
#[doc(hidden)]
pub mod fuzzing;
pub mod lockfile;
pub mod log_throttle;
pub mod node;
pub mod runtime;
pub mod server;
pub mod tcp;
pub mod transfer;
pub mod upstream;
