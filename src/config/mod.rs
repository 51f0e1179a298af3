//! gateway.toml: read, checked whole, and handed on as the settings that lower floors declare.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{jwt, store, token};
use crate::outbound::identity::{CredentialMode, IdentityTable};
use crate::policy::Policy;
use crate::proxy::routes::{Challenge, ErrorShape, Place};
use crate::{server, telemetry, tls, upstream};

/// A whole configuration in which every value is of its own type and every name that is used is there.
#[derive(Debug)]
pub struct Config {
    /// `[server]`.
    pub server: server::Settings,
    /// `[server.tls]`; absent: cleartext.
    pub tls: Option<tls::server::Settings>,
    /// `[admin]`.
    pub admin: SocketAddr,
    /// `[log]`.
    pub log: telemetry::Settings,
    /// `[stores.*]`, in the order of the file's names.
    pub stores: Vec<store::Settings>,
    /// `[authenticators.*]` by name.
    pub authenticators: BTreeMap<Arc<str>, Authenticator>,
    /// `[identity]`: the table, and the further names of `strip`.
    pub identity: IdentityTable,
    /// Further names that a client may never send.
    pub strip: Vec<String>,
    /// `[upstreams.*]` by name.
    pub upstreams: BTreeMap<Arc<str>, upstream::Settings>,
    /// `[[routes]]`, in the order of the file.
    pub routes: Vec<Route>,
}

/// One authenticator.
#[expect(clippy::large_enum_variant, reason = "a handful for each process, made once")]
#[derive(Debug)]
pub enum Authenticator {
    /// `kind = "token"`.
    Token(token::Settings),
    /// `kind = "jwt"`.
    Jwt(jwt::Settings),
}

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Where it applies.
    pub place: Place,
    /// Who may pass.
    pub policy: Policy,
    /// Names of its authenticators, in order; none on a public route.
    pub authenticate: Vec<Arc<str>>,
    /// How refusals are written.
    pub errors: ErrorShape,
    /// The challenge of its refusals.
    pub challenge: Challenge,
    /// Name of its upstream.
    pub upstream: Arc<str>,
    /// What becomes of the credential.
    pub credential: CredentialMode,
    /// Its own bound on bodies, where it has one: `Some(None)` is "unlimited".
    pub body_bytes: Option<Option<u64>>,
    /// Its own deadline, where it has one.
    pub response_timeout: Option<Duration>,
}
