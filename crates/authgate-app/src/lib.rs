//! What authgate has beside its data plane: the command line, the configuration, the control listeners, and the start. Below it are
//! `authgate_dataplane`, what a request runs, `authgate_auth`, authenticators and stores, `authgate_core`, the words and rules, and
//! `authgate_http`, the HTTP engine.
//!
//! The layering rule: a module imports only from its own floor and the floors below it in this map. A test reads the map and reports
//! every `use crate::` that breaks the rule.
//!
//! ```text
//! -- 4  assembly: the only floor that wires parts together
//! cli            commands, one file per command family; no domain logic
//! reference      the generated pages of docs/reference
//! app            builds an App from a Config: every part once, bind, spawn, drain
//! signal         process signals as events: SIGTERM and SIGINT drain, SIGHUP reloads
//! service_manager  the sockets that systemd passes, and the messages that it receives
//! fuzzing        fuzz targets: any bytes as input, a panic if an invariant is broken
//! -- 3  configuration: makes the settings that the data plane and lower floors declare
//! config         gateway.toml: parsed and checked as a whole; every problem with its line and the fix
//! examples       the keys of certs-example, and how to detect them
//! -- 2  listeners
//! control        control listeners: admin, probes, redirects to https
//! -- 1  parts: each talks to one thing outside the process
//! provisioning   writes users, tokens and revocations to stores, for the command line and POST /revoke
//! acme           obtains certificates from an authority (RFC 8555) and keeps them in files
//! watch          reports files that have changed
//! ```

pub mod acme;
pub mod app;
pub mod cli;
pub mod config;
pub mod control;
pub mod examples;
#[doc(hidden)]
pub mod fuzzing;
pub mod provisioning;
pub mod reference;
pub mod service_manager;
pub mod signal;
pub mod watch;
