//! The data plane of authgate: what a request runs, from the handshake to the log line. The crates `authgate_http`, `authgate_core` and
//! `authgate_auth` are below it. Above it is `authgate_app`, which makes its settings and starts it.
//!
//! It is a crate of its own because it is compiled for speed, and what is above it for size. A generic function is compiled in the
//! crate that names its types, so [`gateway::Gateway::run`] starts the server of a worker.
//!
//! The layering rule is that of `authgate_app`: a module imports only from its own floor and the floors below it in this map.
//!
//! ```text
//! -- 3  listeners
//! gateway        what a worker's server asks for: the proxy, TLS, limits
//! -- 2  the request
//! proxy          Proxy::handle: routing, authentication, forwarding
//! -- 1  parts
//! upstream       the door to the application servers: Upstream::forward takes only an Outbound
//! tls            TLS as server and as client
//! telemetry      logs and metrics
//! file           reads files of bounded length
//! recording      recorded requests: their format, the seal of their credentials, and the thread that writes them
//! ```

pub mod file;
pub mod gateway;
pub mod proxy;
pub mod recording;
pub mod telemetry;
pub mod tls;
pub mod upstream;
