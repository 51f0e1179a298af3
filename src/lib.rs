//! authgate: a reverse proxy that handles authentication for existing HTTP APIs. Below it are the crates
//! `authgate_http`, the HTTP engine, `authgate_core`, the words and rules, and `authgate_auth`, authenticators and stores.
//!
//! The layering rule: a module imports only from its own floor and the floors below it in this map. A test reads the map and reports
//! every `use crate::` that breaks the rule.
//!
//! ```text
//! -- 5  assembly: the only floor that wires parts together
//! cli            commands, one file per command family; no domain logic
//! reference      the generated pages of docs/reference
//! app            builds an App from a Config: every part once, bind, spawn, drain
//! signal         process signals as events: SIGTERM and SIGINT drain, SIGHUP reloads
//! service_manager  the sockets that systemd passes, and the messages that it receives
//! fuzzing        fuzz targets: any bytes as input, a panic if an invariant is broken
//! -- 4  configuration: makes the settings that lower floors declare
//! config         gateway.toml: parsed and checked as a whole; every problem with its line and the fix
//! examples       the keys of certs-example, and how to detect them
//! -- 3  listeners
//! gateway        what a worker's server asks for: the proxy, TLS, limits
//! control        control listeners: admin, probes, redirects to https
//! -- 2  the request
//! proxy          Proxy::handle: routing, authentication, forwarding
//! -- 1  parts: each talks to one thing outside the process
//! provisioning   writes users, tokens and revocations to stores, for the command line and POST /revoke
//! acme           obtains certificates from an authority (RFC 8555) and keeps them in files
//! upstream       the door to the application servers: Upstream::forward takes only an Outbound
//! tls            TLS as server and as client
//! watch          reports files that have changed
//! telemetry      logs and metrics
//! file           reads files of bounded length
//! recording      recorded requests: their format, the seal of their credentials, and the thread that writes them
//! ```

pub mod acme;
pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod examples;
pub mod file;
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod provisioning;
pub mod proxy;
pub mod recording;
pub mod reference;
pub mod service_manager;
pub mod signal;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod watch;
