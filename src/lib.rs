//! authgate: a reverse proxy that handles authentication for existing HTTP APIs.
//!
//! The layering rule: a module imports only from its own floor and the floors below it in this map. A test reads the map and reports
//! every `use crate::` that breaks the rule.
//!
//! ```text
//! -- 5  assembly: the only floor that wires parts together
//! cli            commands, one file per command family; no domain logic
//! app            builds an App from a Config: every part once, bind, spawn, drain
//! signal         process signals as events: SIGTERM and SIGINT drain, SIGHUP reloads
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
//! server         sockets, workers, connections, deadlines, drain; knows its handler only by a trait
//! auth           authentication: token and JWT authenticators, stores, caches
//! provisioning   writes users, tokens and revocations to stores, for the command line
//! upstream       the application servers, behind one function: Upstream::forward
//! tls            TLS as server and as client
//! telemetry      logs and metrics
//! transfer       message transfer: request bodies, and writing HTTP/1 to a connection
//! tcp            TCP socket options for every connection
//! lockfile       locks a file for one process at a time
//! runtime        helpers for single-threaded runtimes: hyper tasks, and replay of bytes that were read ahead
//! -- 0  words and rules: pure; no async, no I/O, no clock
//! outbound       the only type of request that can be forwarded, and its identity headers
//! policy         authorization rules, and the Permit that proves that they were evaluated
//! identity       the identity of a user, in text that is valid in headers
//! credential     parses credential headers, and the reasons to refuse them
//! member         paths to members of JSON objects: names of claims and attributes
//! path           all interpretations of a request path by common servers
//! secret         values that cannot be printed
//! printable      escapes untrusted text for output to people
//! framing        the framing of HTTP/1 messages, and the bytes that are allowed in them
//! concurrency    concurrency limits
//! ```

pub mod app;
pub mod auth;
pub mod cli;
pub mod concurrency;
pub mod config;
pub mod control;
pub mod credential;
pub mod examples;
pub(crate) mod framing;
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod identity;
pub mod lockfile;
pub mod member;
pub mod outbound;
pub mod path;
pub mod policy;
pub mod printable;
pub mod provisioning;
pub mod proxy;
pub mod runtime;
pub mod secret;
pub mod server;
pub mod signal;
pub mod tcp;
pub mod telemetry;
pub mod tls;
pub mod transfer;
pub mod upstream;
