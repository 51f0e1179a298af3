//! authgate: a reverse proxy that handles authentication for existing HTTP APIs.
//!
//! One rule holds the structure: imports only go down this map. A test reads it and names any `use crate::` that climbs.
//!
//! ```text
//! -- 5  assembly: the only floor that wires parts together
//! cli            one file per command family; no logic of their own
//! app            Config -> App: build every part once, bind, spawn, drain
//! signal         SIGTERM and SIGINT -> drain, SIGHUP -> reload, as one stream of events
//! fuzzing        doors for fuzzers: any bytes in, a panic where something no longer holds
//! -- 4  configuration: makes the settings that lower floors declare
//! config         gateway.toml: read, checked whole, every problem with its line and what to write instead
//! examples       what certs-example holds, and how to know it again
//! -- 3  listeners
//! server         sockets, workers, connections, deadlines, drain
//! control        listeners beside the workers: operators, probes, redirects to TLS
//! -- 2  the request
//! proxy          Proxy::handle, the path of a request on one page
//! -- 1  parts: each talks to one thing outside the process
//! auth           who is asking: token and JWT authenticators, stores, cache
//! upstream       the application servers: one seam, Upstream::forward
//! tls            both sides of TLS
//! telemetry      the log, and every metric
//! transfer       messages on their way through: bodies from clients, and HTTP/1 into a connection
//! tcp            options of TCP sockets that hold for every connection
//! lockfile       one program at a time at a file
//! runtime        what a runtime of one thread lacks: tasks for hyper, bytes that were read too early
//! -- 0  words and rules: pure; no async, no I/O, no clock
//! outbound       the only request that may leave, and what it says about whom
//! policy         who may pass, and the proof that it was asked
//! identity       who somebody is, in texts that can travel in headers
//! credential     what a credential's header says, and why it is turned down
//! member         which member of a JSON object is meant: names of claims and attributes
//! path           every reading that a server could make of a path
//! secret         values that cannot be printed
//! printable      text of strangers in output for people: printable characters alone
//! framing        where a message of HTTP/1 begins and ends, and which bytes may stand where
//! concurrency    limits on how much is under way at once
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
pub mod identity;
pub mod lockfile;
pub mod member;
pub mod outbound;
pub mod path;
pub mod policy;
pub mod printable;
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
