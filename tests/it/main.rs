//! Tests of the program as a whole, one module for each thing it can do. Every credential in them contains the word `canary`, which
//! no log and no response may show; `harness` checks this.
#![allow(clippy::unwrap_used, reason = "test helpers may fail the test")]
#![allow(
    missing_debug_implementations,
    unreachable_pub,
    reason = "these types are used in this binary only"
)]

mod harness;

mod access_log;
mod acme;
mod admin;
mod admin_access;
mod answers;
mod api_key;
mod certificate_bound;
mod check;
mod check_files;
mod claim_types;
mod cli_import;
mod cli_store;
mod control_listeners;
mod cors;
mod credential_modes;
mod demo;
mod descriptors;
mod django;
mod django_database;
mod django_oauth_toolkit;
mod django_page;
mod django_site;
mod django_source;
mod django_triggers;
mod dpop;
mod drain;
mod embedded_store;
mod examples;
mod explain;
mod faults;
mod fetch;
mod floors;
mod forgery;
mod form;
mod frames;
mod framing;
mod fuzzing;
mod health_checks;
mod help;
mod identity_fields;
mod identity_provider;
mod idle;
mod idle_client_connections;
mod idle_links;
mod introspection;
mod invalidation;
mod issuers;
mod jwt_auth;
mod jwt_store;
mod keep_alive;
mod key_rotation;
mod key_sets;
mod limits;
mod load;
mod log_fields;
mod misses;
mod names;
mod observe;
mod observe_django;
mod oracle;
mod outage;
mod parity;
mod peers;
mod policy;
mod printable;
mod problem;
mod provider_bound_tokens;
mod provider_examples;
mod proxying;
mod readings;
mod recording;
mod reload;
mod reload_command;
mod reload_listeners;
mod reload_panic;
mod routing;
mod service_manager;
mod signed_identity;
mod slow;
mod snapshots;
mod socket_files;
mod spool;
mod startup;
mod streams;
mod systemd;
mod tcp_keepalive;
mod tls;
mod token_auth;
mod trust;
mod uploads;
mod upstreams;
mod vectors;
mod verify_import;
mod watch;
mod websocket;
mod websocket_credential;
mod windows;
