//! Reads and checks gateway.toml, and returns the settings that the lower modules declare.

mod admin_contact;
mod change;
mod check;
mod key_path;
mod keys;
mod mask;
mod modes;
mod named_file;
mod outline;
mod problem;
mod reader;
mod schema;
mod secrets;
mod source;
mod syntax;
#[cfg(test)]
mod tests;

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use authgate_auth::cache::CacheSettings;
use authgate_auth::identity_signer::IdentitySigner;
use authgate_auth::jwt::identity_key::IdentityKey;
use authgate_auth::store::StoreSettings;
use authgate_auth::{AuthenticatorSettings, IdentityRules, PROOF_HEADER};
use authgate_core::identity::TableId;
use authgate_core::outbound::forwarded::OptionalFields;
use authgate_core::outbound::identity::CredentialMode;
use authgate_core::policy::Policy;
use authgate_core::policy::rollout::Rollout;
use authgate_dataplane::gateway::ServerSettings;
use authgate_dataplane::proxy::cors::Cors;
use authgate_dataplane::proxy::refusal::format::RefusalFormat;
use authgate_dataplane::proxy::routes::{HostPattern, RouteMatch};
use authgate_dataplane::proxy::stream_end::StreamRule;
use authgate_dataplane::proxy::websocket_credential::WebSocketCredential;
use authgate_dataplane::recording::RecorderSettings;
use authgate_dataplane::tls::control::ControlTlsSettings;
use authgate_dataplane::{file, telemetry, tls};
use authgate_http::framing::header_case::ConfiguredNames;
use authgate_http::server::address::Address;
use authgate_http::upstream::UpstreamSettings;
use http::HeaderName;
use toml::de::DeTable;

pub use self::admin_contact::{AdminContact, admin_contact};
pub use self::change::{Change, ChangeKind};
pub use self::modes::WatchMode;
pub use self::named_file::NamedFile;
use self::problem::{Basis, Problems};
pub use self::problem::{ConfigError, Problem, Refusal, Report, ReportFormat, Severity};
use self::reader::{Context, Section};
pub use self::source::Source;
use crate::acme::AcmeSettings;
use crate::control::token::AdminToken;

/// Every key that the file can have, for the manual and the schema.
pub(crate) mod declarations {
    pub(crate) use super::keys::nearest_name;
    pub(crate) use super::reader::walk::Place;
    pub(crate) use super::reader::{Declared, Presence, Shape};
    pub(crate) use super::schema::schema;

    /// Calls `visit` with each table at each of its places, in the order of the manual.
    pub(crate) fn for_each_table(visit: &mut impl FnMut(&Place)) {
        super::reader::walk::tables(&super::keys::ROOT, visit);
    }
}

/// The settings of an authenticator's cache without `cache`.
pub fn default_cache() -> CacheSettings {
    keys::authenticators::cache::defaults()
}

/// A configuration in which every value is parsed into its type and every name refers to a table that exists.
#[derive(Debug)]
pub struct Config {
    /// The file's name, as it was given.
    pub file: String,
    /// Its text for readers, without comments and possible secrets.
    pub redacted: Arc<str>,
    /// `[server]`.
    pub server: ServerSettings,
    /// `server.watch`.
    pub watch: WatchMode,
    /// `[server.tls]`; `None` means without TLS.
    pub tls: Option<tls::server::ServerTlsSettings>,
    /// `server.tls.acme`.
    pub acme: Option<AcmeSettings>,
    /// `[admin]`.
    pub admin: Admin,
    /// `[probes]`.
    pub probes: Option<SocketAddr>,
    /// `server.redirect_http`.
    pub redirects: Vec<SocketAddr>,
    /// `[log]`.
    pub log: telemetry::LogSettings,
    /// `log.record`.
    pub record: Option<RecorderSettings>,
    /// `[stores.*]`, in the order of the file's names.
    pub stores: Vec<StoreSettings>,
    /// `[authenticators.*]` by name.
    pub authenticators: BTreeMap<Arc<str>, AuthenticatorSettings>,
    /// `[identity]` and `[upstreams.*.identity]`, and the claims that they and the routes need.
    pub identities: IdentityRules,
    /// The names of the headers of signed identities.
    pub signed_headers: Vec<HeaderName>,
    /// The keys of all `signed` tables, whose public halves are published.
    pub identity_keys: Vec<PublishedKey>,
    /// Further header names that clients may not send: every `strip`.
    pub strip: Vec<String>,
    /// Names of fields as the file writes them: of `headers` and `secret_header`.
    pub names: ConfiguredNames,
    /// `[forwarded]`.
    pub forwarded: OptionalFields,
    /// `[upstreams.*]` by name.
    pub upstreams: BTreeMap<Arc<str>, UpstreamSettings>,
    /// `[[routes]]`, in the order of the file.
    pub routes: Vec<Route>,
}

/// `[admin]`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The addresses that it listens on.
    pub listen: Vec<Address>,
    /// Host names that it accepts, besides localhost and IP addresses.
    pub hosts: Vec<String>,
    /// The token that requests must present.
    pub token: Option<AdminToken>,
    /// TLS of its TCP addresses; `None` means without TLS.
    pub tls: Option<ControlTlsSettings>,
}

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    /// The host, path and methods that it matches.
    pub matches: RouteMatch,
    /// What it does with requests. Routes with equal rules share them.
    pub rules: Arc<RouteRules>,
}

/// What a route does with requests.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RouteRules {
    /// Which requests it lets through.
    pub policy: Policy,
    /// `mode`: the users for whom the policy is enforced. `None`: all requests.
    pub rollout: Option<Rollout>,
    /// Names of its authenticators, in order; none on a public route.
    pub authenticate: Vec<Arc<str>>,
    /// Whether one of them forwards keys that no record knows.
    pub forwards_unknown: bool,
    /// The form of its error responses.
    pub refusal_format: RefusalFormat,
    /// Which origins may read its error responses.
    pub cors: Option<Cors>,
    /// Where pages send the credential of a WebSocket.
    pub websocket: Option<WebSocketCredential>,
    /// What answers its requests.
    pub target: RouteTarget,
    /// The identity headers that its upstream receives.
    pub identity: TableId,
    /// Makes the signed identities that its upstream receives.
    pub signer: Option<Arc<IdentitySigner>>,
    /// Whether the credential is forwarded, replaced or removed.
    pub credential: CredentialMode,
    /// Its own limit of body sizes, if it has one: `Some(None)` is "unlimited".
    pub body_bytes: Option<Option<u64>>,
    /// Its own response timeout, if it has one.
    pub response_timeout: Option<Duration>,
    /// `streams`: what happens to streams whose credential is not valid any more.
    pub streams: StreamRule,
}

/// What answers the requests of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RouteTarget {
    /// The upstream of this name.
    Upstream(Arc<str>),
    /// The gateway: `jwks = true`.
    KeySet,
}

impl RouteTarget {
    /// The name of the upstream, if it is one.
    pub fn upstream(&self) -> Option<&Arc<str>> {
        match self {
            Self::Upstream(name) => Some(name),
            Self::KeySet => None,
        }
    }
}

/// A key that signs identities, or that only verifies them during a rotation.
#[derive(Debug, Clone)]
pub struct PublishedKey {
    /// Its path in the file, such as `identity.signed.keys[0]`.
    pub path: String,
    /// The key.
    pub key: Arc<IdentityKey>,
}

/// A configuration without errors, and its warnings.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The warnings.
    pub warnings: Report,
    /// What is kept of the text, and the files that the text names.
    pub source: Source,
}

/// Reads a file, or a pipe.
///
/// # Errors
/// The file cannot be read or has errors; the report has all of them.
pub fn load(file: &Path) -> Result<Loaded, ConfigError> {
    parse_file(file, std::fs::read(file))
}

/// Reads a file again, for a gateway that runs. A pipe is refused: its writer may not come.
///
/// # Errors
/// As for [`load`].
pub fn load_again(file: &Path) -> Result<Loaded, ConfigError> {
    let mut loaded = parse_file(file, file::read(file))?;
    loaded.warnings = loaded.warnings.without_start();
    Ok(loaded)
}

fn parse_file(file: &Path, bytes: io::Result<Vec<u8>>) -> Result<Loaded, ConfigError> {
    let text = text_of(file, bytes)?;
    let name = file.display().to_string();
    parse(&name, &text, file.parent().unwrap_or(Path::new("")))
}

fn text_of(file: &Path, bytes: io::Result<Vec<u8>>) -> Result<String, ConfigError> {
    let name = file.display().to_string();
    let unreadable =
        |message: String, help: &str| ConfigError::new(Report::unreadable(&name, message, help), Vec::new());
    let bytes = bytes.map_err(|error| {
        unreadable(
            format!("the configuration cannot be read: {error}"),
            "name it with `--config FILE` or AUTHGATE_CONFIG",
        )
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.split(|byte| *byte == b'\n').count();
        unreadable(
            format!("line {line} of the file is not UTF-8"),
            "save the file as UTF-8",
        )
    })
}

/// Reads a text. Problems call it `name`; relative paths start from `folder`.
///
/// # Errors
/// The text has errors; the report has all of them.
pub fn parse(name: &str, text: &str, folder: &Path) -> Result<Loaded, ConfigError> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let context = Context {
        root: &keys::ROOT,
        folder: folder.to_owned(),
        problems: Problems::default(),
        files: RefCell::default(),
        system_tls: OnceCell::default(),
    };
    let config = check::config(name, Section::root(&context, &table));
    if context.problems.has_errors() || !errors.is_empty() {
        context
            .problems
            .retain(|problem| !matches!(problem.basis, Basis::Machine | Basis::Start));
    }
    let syntax = syntax::merge(&context.problems, text, &table, &errors);
    let (report, masked) = context.problems.into_report(name, text, table.get_ref(), syntax);
    if report
        .problems()
        .iter()
        .any(|problem| problem.severity == Severity::Error)
    {
        return Err(ConfigError::new(report, context.files.into_inner()));
    }
    let config = Config {
        redacted: mask::redact(text, &masked).into(),
        ..config
    };
    Ok(Loaded {
        config,
        warnings: report,
        source: Source::new(name, text, &table, masked, context.files.into_inner()),
    })
}

impl Config {
    /// Every host in certificates and routes. Wildcards begin with `*.`.
    pub fn hosts(&self) -> HashSet<String> {
        let certificates = self.tls.iter().flat_map(|tls| &tls.certificates);
        let routes = self.routes.iter().filter_map(|route| match &route.matches.host {
            HostPattern::Any => None,
            HostPattern::Exact(host) => Some(host.to_string()),
            HostPattern::Subdomains(domain) => Some(format!("*.{domain}")),
        });
        certificates
            .flat_map(tls::certificate::Certificate::names)
            .cloned()
            .chain(self.acme.iter().flat_map(|acme| acme.domains.iter().cloned()))
            .chain(routes)
            .collect()
    }

    /// Every header that an authenticator reads.
    pub fn credential_headers(&self) -> Vec<HeaderName> {
        let read = |authenticator: &AuthenticatorSettings| {
            let proof = authenticator.kind.has_proofs().then_some(PROOF_HEADER);
            std::iter::once(authenticator.header.clone()).chain(proof)
        };
        self.authenticators.values().flat_map(read).collect()
    }

    /// The largest leeway of any authenticator.
    pub fn largest_leeway(&self) -> Duration {
        let leeways = self
            .authenticators
            .values()
            .map(|authenticator| authenticator.kind.leeway());
        leeways.max().unwrap_or_default()
    }
}
