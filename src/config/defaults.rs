//! Every default of gateway.toml, in the order of the file. A key without a constant here is `false`, empty, absent or unlimited unless it
//! is required.
//!
//! Only the defaults of the claim rules stand elsewhere: they follow `profile`, in [`Rules::of`](authgate_auth::jwt::Rules::of).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use authgate_auth::cache::{CacheSettings, OnOutage};
use authgate_auth::introspection::ClientAuthentication;
use authgate_auth::jwt::{Profile, UserIdField};
use authgate_auth::store::Digests;
use authgate_auth::store::redis::Invalidation;
use authgate_auth::token::OnUnknown;
use authgate_auth::{BindingRules, CredentialForm};
use authgate_core::outbound::identity::{CredentialMode, Encoding, ValueSource};
use authgate_http::server::limits::Limits;
use authgate_http::upstream::{Balance, HostMode};
use bytesize::ByteSize;
use http::HeaderName;
use http::header::AUTHORIZATION;
use tracing::Level;

use super::modes::{ErrorFormat, UnsizedMode, WatchMode};
use crate::gateway::{Drain, RequestLimits};
use crate::proxy::stream_end::StreamRule;
use crate::telemetry::{self, LogFormat};
use crate::tls::provider::TlsVersion;

/// `server.workers`: one for each core.
pub(super) fn workers() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

/// `server.watch`.
pub(super) const WATCH: WatchMode = WatchMode::Keys;

/// `server.tls.min_version`.
pub(super) const MIN_VERSION: TlsVersion = TlsVersion::Tls12;

/// `server.tls.acme.directory`: Let's Encrypt.
pub(super) const ACME_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// `server.tls.acme.store`.
pub(super) const ACME_STORE: &str = "/var/lib/authgate/acme";

/// `server.limits`.
pub(super) const LIMITS: Limits = Limits {
    connections: 20_000,
    header_bytes: 32 * 1024,
    headers: 100,
    tls_handshake_timeout: Duration::from_secs(10),
    header_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(75),
    body_read_timeout: Duration::from_secs(60),
    h2_streams: 128,
};

/// `server.limits`, for requests.
pub(super) const REQUEST_LIMITS: RequestLimits = RequestLimits {
    body_bytes: None,
    in_flight: 0,
};

/// `server.drain`.
pub(super) const DRAIN: Drain = Drain {
    delay: Duration::ZERO,
    timeout: Duration::from_secs(20),
};

/// `admin.listen`.
pub(super) const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// `log`.
pub(super) const LOG: telemetry::LogSettings = telemetry::LogSettings {
    level: Level::INFO,
    format: LogFormat::Text,
    access: true,
    query: false,
};

/// `dpop`, `dpop_window`, `dpop_replay` and `certificate_bound` of an authenticator.
pub(super) const BINDING: BindingRules = BindingRules::OFF;

/// `stores.*.prefix`.
pub(super) const STORE_PREFIX: &str = "authgate:";
/// `stores.*.timeout`.
pub(super) const STORE_TIMEOUT: Duration = Duration::from_millis(250);
/// `stores.*.invalidation`.
pub(super) const INVALIDATION: Invalidation = Invalidation::Tracking;
/// `stores.*.digest`.
pub(super) const DIGEST: Digests = Digests::SHA256;

/// `stores.*.timeout` of `kind = "django"`.
pub(super) const DJANGO_TIMEOUT: Duration = Duration::from_secs(1);
/// `stores.*.connections`.
pub(super) const DJANGO_CONNECTIONS: usize = 4;
/// `stores.*.invalidation` of `kind = "django"`.
pub(super) const DJANGO_INVALIDATION: authgate_auth::store::django::Invalidation =
    authgate_auth::store::django::Invalidation::Notify;

/// `authenticators.*.source_ttl`.
pub(super) const SOURCE_TTL: Duration = Duration::from_secs(300);
/// `authenticators.*.on_outage`.
pub(super) const ON_OUTAGE: OnOutage = OnOutage::Deny;
/// `authenticators.*.stale_for`.
pub(super) const STALE_FOR: Duration = Duration::from_secs(300);
/// `authenticators.*.header`.
pub(super) const CREDENTIAL_HEADER: HeaderName = AUTHORIZATION;
/// `authenticators.*.scheme` of `kind = "token"`.
pub(super) const TOKEN_SCHEME: &str = "Token";
/// `authenticators.*.scheme` of `kind = "jwt"`, and `routes.websocket.scheme`.
pub(super) const JWT_SCHEME: &str = "Bearer";
/// `authenticators.*.form`.
pub(super) const FORM: CredentialForm = CredentialForm::Any;
/// `authenticators.*.on_unknown`.
pub(super) const ON_UNKNOWN: OnUnknown = OnUnknown::Refuse;
/// `authenticators.*.realm`.
pub(super) const REALM: &str = "api";
/// `authenticators.*.profile`.
pub(super) const PROFILE: Profile = Profile::SimpleJwt;
/// `authenticators.*.token_bytes`.
pub(super) const TOKEN_BYTES: usize = 16 * 1024;
/// `authenticators.*.user_id_field`.
pub(super) const USER_ID_FIELD: UserIdField = UserIdField::Id;
/// `authenticators.*.username_claim`.
pub(super) const USERNAME_CLAIM: &str = "username";
/// `authenticators.*.check_user_is_active`.
pub(super) const CHECK_USER_IS_ACTIVE: bool = true;
/// `authenticators.*.revoke_token_claim`.
pub(super) const REVOKE_TOKEN_CLAIM: &str = "hash_password";

/// `authenticators.*.jwks.refresh`.
pub(super) const JWKS_REFRESH: Duration = Duration::from_secs(5 * 60);
/// `authenticators.*.jwks.cooldown`.
pub(super) const JWKS_COOLDOWN: Duration = Duration::from_secs(30);
/// `authenticators.*.jwks.max_stale`.
pub(super) const JWKS_MAX_STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// `authenticators.*.jwks.timeout`.
pub(super) const JWKS_TIMEOUT: Duration = Duration::from_secs(5);

/// `authenticators.*.timeout` of `kind = "introspection"`.
pub(super) const INTROSPECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// `authenticators.*.client.method`.
pub(super) const CLIENT_METHOD: ClientAuthentication = ClientAuthentication::Basic;
/// `authenticators.*.leeway` of `kind = "introspection"`.
pub(super) const INTROSPECTION_LEEWAY: Duration = Duration::ZERO;
/// `authenticators.*.user_id_claim` of `kind = "introspection"`.
pub(super) const INTROSPECTION_USER_ID_CLAIM: &str = "sub";
/// `authenticators.*.jti_claim` of `kind = "introspection"`.
pub(super) const INTROSPECTION_JTI_CLAIM: &str = "jti";

/// `authenticators.*.cache`.
pub const CACHE: CacheSettings = CacheSettings {
    entries: 100_000,
    ttl: Duration::from_secs(60),
    negative_entries: 20_000,
    negative_ttl: Duration::from_secs(5),
};

/// `identity.headers`.
pub(super) fn identity_headers() -> Vec<(HeaderName, ValueSource)> {
    vec![
        (HeaderName::from_static("x-user-id"), ValueSource::Id),
        (HeaderName::from_static("x-user-name"), ValueSource::Username),
    ]
}

/// `identity.encoding`.
pub(super) const ENCODING: Encoding = Encoding::Percent;
/// `identity.signed.header`.
pub(super) const SIGNED_HEADER: &str = "X-Authgate-Identity";
/// `identity.signed.issuer`.
pub(super) const SIGNED_ISSUER: &str = "authgate";
/// `identity.signed.ttl`.
pub(super) const SIGNED_TTL: Duration = Duration::from_secs(60);
/// `identity.signed.facts`, beside the claims and attributes that `headers` names.
pub(super) const SIGNED_FACTS: [ValueSource; 5] = [
    ValueSource::Username,
    ValueSource::Email,
    ValueSource::Groups,
    ValueSource::Scopes,
    ValueSource::Authenticator,
];
/// `identity.credential`.
pub(super) const CREDENTIAL: CredentialMode = CredentialMode::Opaque;

/// `upstreams.*.servers.weight`.
pub(super) const WEIGHT: u32 = 1;
/// `upstreams.*.balance`.
pub(super) const BALANCE: Balance = Balance::LeastRequest;
/// `upstreams.*.host`.
pub(super) const HOST: HostMode = HostMode::Preserve;
/// `upstreams.*.connect_timeout`.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// `upstreams.*.response_timeout`.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// `upstreams.*.idle_timeout`.
pub(super) const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// `upstreams.*.body_read_timeout`.
pub(super) const UPSTREAM_BODY_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// `upstreams.*.in_flight`: no limit.
pub(super) const UPSTREAM_IN_FLIGHT: usize = 0;
/// `upstreams.*.retries`.
pub(super) const RETRIES: u32 = 1;
/// `upstreams.*.unsized`.
pub(super) const UNSIZED: UnsizedMode = UnsizedMode::Spool;
/// `upstreams.*.buffer.request`.
pub(super) const REQUEST_BUFFER: usize = 64 * 1024;
/// `upstreams.*.buffer.response`.
pub(super) const RESPONSE_BUFFER: usize = 256 * 1024;
/// `upstreams.*.spool.dir`.
pub(super) const SPOOL_DIR: &str = "/var/tmp";
/// `upstreams.*.spool.body`.
pub(super) const SPOOL_BODY: ByteSize = ByteSize::mib(64);
/// `upstreams.*.spool.total`.
pub(super) const SPOOL_TOTAL: ByteSize = ByteSize::gib(1);
/// `upstreams.*.health.interval`.
pub(super) const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// `routes.errors`.
pub(super) const ERRORS: ErrorFormat = ErrorFormat::Drf;
/// `routes.challenge`: `"first"`.
pub(super) const CHALLENGE: bool = true;
/// `routes.*.streams`.
pub(super) const STREAMS: StreamRule = StreamRule::End;
