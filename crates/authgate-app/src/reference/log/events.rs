//! The events of the log at `info` and above, but for that of requests. A test compares them with the sources.

/// An event, as a call of `info!`, `warn!` or `error!` writes it.
#[derive(Debug)]
pub struct Event {
    /// Its part of the page.
    pub group: Group,
    /// `info`, `warn` or `error`.
    pub level: &'static str,
    /// Its text. Braces stand for a value.
    pub message: &'static str,
    /// Its fields.
    pub fields: &'static [&'static str],
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Start, drain, workers.
    Process,
    /// The configuration and its reloads.
    Configuration,
    /// Connections of clients.
    Clients,
    /// Servers of upstreams.
    Upstreams,
    /// Stores.
    Stores,
    /// Key sets and introspection endpoints.
    Providers,
    /// Certificates by ACME.
    Certificates,
    /// The admin listener.
    Admin,
    /// Observed and recorded requests.
    Observation,
}

impl Group {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 9] = [
        Self::Process,
        Self::Configuration,
        Self::Clients,
        Self::Upstreams,
        Self::Stores,
        Self::Providers,
        Self::Certificates,
        Self::Admin,
        Self::Observation,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Process => "The process",
            Self::Configuration => "Configuration and reloads",
            Self::Clients => "Connections of clients",
            Self::Upstreams => "Upstreams",
            Self::Stores => "Stores",
            Self::Providers => "Identity providers",
            Self::Certificates => "Certificates",
            Self::Admin => "The admin listener",
            Self::Observation => "Observed and recorded requests",
        }
    }
}

const fn event(group: Group, level: &'static str, message: &'static str, fields: &'static [&'static str]) -> Event {
    Event {
        group,
        level,
        message,
        fields,
    }
}

/// All of them, each with all fields that it can have.
pub static EVENTS: &[Event] = &[
    event(Group::Process, "info", "serving probes", &["listen"]),
    event(Group::Process, "info", "redirecting clients to https", &["listen"]),
    event(
        Group::Process,
        "info",
        "an address is closed, and its connections drain",
        &["listen", "key"],
    ),
    event(
        Group::Process,
        "info",
        "listening on sockets that the service manager has passed",
        &["sockets"],
    ),
    event(
        Group::Process,
        "info",
        "serving",
        &["listen", "admin", "workers", "tls"],
    ),
    event(Group::Process, "info", "draining", &["delay", "timeout"]),
    event(Group::Process, "info", "drained", &[]),
    event(Group::Process, "info", "all workers answer again", &[]),
    event(
        Group::Process,
        "warn",
        "drain timeout reached; closing the remaining connections",
        &[],
    ),
    event(
        Group::Process,
        "warn",
        "server.limits.connections exceeds the limit of open files and is capped; raise the hard limit (systemd: LimitNOFILE=) to twice the connections plus {spare}",
        &["wanted", "affordable", "open_files"],
    ),
    event(
        Group::Process,
        "warn",
        "the monotonic clock cannot be read",
        &["reason"],
    ),
    event(
        Group::Process,
        "warn",
        "the service manager could not be notified",
        &["reason", "times"],
    ),
    event(
        Group::Process,
        "error",
        "a worker has stopped unexpectedly; the gateway stops",
        &["reason"],
    ),
    event(
        Group::Process,
        "error",
        "workers hang, so the watchdog of the service manager is not fed",
        &["workers", "limit"],
    ),
    event(
        Group::Configuration,
        "info",
        "the configuration was read again and is in force",
        &["trigger", "changes"],
    ),
    event(
        Group::Configuration,
        "warn",
        "no reload: this process was started without a configuration file that can be read again",
        &["trigger"],
    ),
    event(
        Group::Configuration,
        "warn",
        "a worker does not serve the new configuration yet",
        &["timeout"],
    ),
    event(
        Group::Configuration,
        "warn",
        "a warning about the configuration",
        &["key", "file", "line", "reason", "help"],
    ),
    event(
        Group::Configuration,
        "warn",
        "files cannot be watched for events; they are checked every 30 s instead",
        &["reason", "times"],
    ),
    event(
        Group::Configuration,
        "error",
        "a reload has stopped unexpectedly",
        &["trigger", "reason"],
    ),
    event(
        Group::Configuration,
        "error",
        "the configuration was read again and cannot be used; nothing has changed",
        &["trigger", "errors"],
    ),
    event(
        Group::Configuration,
        "error",
        "an error in the configuration",
        &["key", "file", "line", "reason", "help"],
    ),
    event(
        Group::Clients,
        "info",
        "a trusted proxy connected without a PROXY protocol header",
        &["proxy.ip", "reason"],
    ),
    event(
        Group::Clients,
        "info",
        "an HTTP/2 connection was closed: the client exceeded the limit of frames without data or of resets",
        &["client.ip", "reason"],
    ),
    event(
        Group::Clients,
        "warn",
        "queued connections could not be accepted and are lost",
        &["reason"],
    ),
    event(
        Group::Clients,
        "warn",
        "a socket file could not be removed",
        &["path", "reason"],
    ),
    event(
        Group::Clients,
        "warn",
        "a worker hangs, so it does not accept connections of a further address",
        &[],
    ),
    event(
        Group::Clients,
        "warn",
        "this worker cannot use the listener of a further address",
        &["reason"],
    ),
    event(
        Group::Clients,
        "warn",
        "accepting a connection failed; trying again",
        &["reason", "times"],
    ),
    event(
        Group::Clients,
        "warn",
        "a connection could not be handed over",
        &["reason"],
    ),
    event(
        Group::Clients,
        "warn",
        "a connection that was handed over is lost",
        &["reason"],
    ),
    event(
        Group::Clients,
        "warn",
        "a field of a trusted proxy is ignored: its last value must be {}",
        &["peer", "field", "times"],
    ),
    event(
        Group::Upstreams,
        "info",
        "a server is up again",
        &["upstream", "server"],
    ),
    event(
        Group::Upstreams,
        "warn",
        "a server is down: its checks fail",
        &["upstream", "server", "path", "host", "reason"],
    ),
    event(
        Group::Upstreams,
        "warn",
        "a server's name cannot be looked up; its last addresses are used",
        &["name", "reason", "times"],
    ),
    event(
        Group::Stores,
        "info",
        "{} answers again; cached decisions are not used beyond their ttl any more",
        &["authenticators", "seconds"],
    ),
    event(Group::Stores, "info", "subscribed to changes of the store", &["store"]),
    event(
        Group::Stores,
        "info",
        "the store is usable again",
        &["store", "endpoint"],
    ),
    event(Group::Stores, "info", "the store is usable", &["store", "endpoint"]),
    event(
        Group::Stores,
        "info",
        "the store's file changed and was read again",
        &["store"],
    ),
    event(
        Group::Stores,
        "info",
        "the delay of revocations is not measured: the role may not write the key for that. See docs/operations/revocation.md",
        &["store", "reason"],
    ),
    event(
        Group::Stores,
        "info",
        "the primaries of the store are known",
        &["store", "primaries"],
    ),
    event(
        Group::Stores,
        "warn",
        "{} cannot answer: cached decisions are used that were confirmed at most stale_for ago",
        &["authenticator", "reason", "stale_for"],
    ),
    event(
        Group::Stores,
        "warn",
        "changes of the store are not reported; cache entries expire only after their ttl",
        &["store", "reason"],
    ),
    event(
        Group::Stores,
        "warn",
        "these tables have no triggers, so their changes are not reported; cache entries expire only after their ttl. Run the output of `authgate django sql --triggers` in the database, or write `invalidation = \"off\"`",
        &["store", "tables"],
    ),
    event(
        Group::Stores,
        "warn",
        "a further connection to the store failed; the others are used",
        &["store", "endpoint", "reason", "times"],
    ),
    event(
        Group::Stores,
        "warn",
        "the store cannot be reached; its routes answer 503",
        &["store", "endpoint", "reason"],
    ),
    event(
        Group::Stores,
        "warn",
        "the store's file is large: each change writes and reads all of it. Move it to Redis: `authgate token export`, `authgate token import`",
        &["store", "tokens", "users", "limit"],
    ),
    event(
        Group::Stores,
        "warn",
        "the store was filled anew and is used again. Revocations and revoked tokens that it held before are lost, unless an `authgate token export` of it was imported",
        &["store"],
    ),
    event(
        Group::Stores,
        "warn",
        "the primaries of the store cannot be found out",
        &["store", "reason"],
    ),
    event(
        Group::Stores,
        "warn",
        "the server with the layout record cannot be reached; look-ups go on for `cache.ttl`, then routes of the store answer 503",
        &["store", "endpoint", "reason"],
    ),
    event(
        Group::Stores,
        "warn",
        "the store is being filled; its routes answer 503 until the import is complete. If the import was interrupted, run it again",
        &["store", "endpoint"],
    ),
    event(
        Group::Stores,
        "warn",
        "maxmemory-policy must be noeviction: users with evicted records are refused. Set it in redis.conf",
        &["store", "policy"],
    ),
    event(
        Group::Stores,
        "warn",
        "this Redis does not report changes: a change takes effect after cache.ttl. Use Redis 6 or later, and grant its user +hello and +client|tracking; or write `invalidation = \"off\"` in the store's table",
        &["store", "reason"],
    ),
    event(
        Group::Stores,
        "warn",
        "a record of the source could not be written or removed; the role needs +set +del +watch +multi +exec +scan +pttl",
        &["store", "reason", "times"],
    ),
    event(
        Group::Stores,
        "error",
        "the store answers with an error; its routes answer 503",
        &["store", "endpoint", "reason"],
    ),
    event(
        Group::Stores,
        "error",
        "the store's file cannot be used; routes that need it answer 503 until it is corrected",
        &["store", "reason"],
    ),
    event(
        Group::Stores,
        "error",
        "the task that watches the store has failed, which is a bug, and starts again",
        &["store", "reason"],
    ),
    event(
        Group::Stores,
        "error",
        "invalid record in the store; requests that need it get 503. Correct or delete the record",
        &["store", "reason", "times"],
    ),
    event(
        Group::Stores,
        "error",
        "a record in the store does not have its seal; requests that need it get 503. Find out which program wrote it",
        &["store", "reason", "times"],
    ),
    event(
        Group::Stores,
        "error",
        "the store's layout record is missing: the store was flushed, evicted, never filled, or is another database; its routes answer 503. Fill it with `authgate token import`; it is used again without a restart. Revocations and revoked tokens are in no dump of Django: import the last `authgate token export` first",
        &["store", "endpoint"],
    ),
    event(
        Group::Stores,
        "error",
        "the store's layout record has changed while this gateway was running: it is another database; its routes answer 503. If this is intended, run `authgate reload`",
        &["store", "endpoint"],
    ),
    event(
        Group::Stores,
        "error",
        "the store's layout record cannot be used; its routes answer 503",
        &["store", "endpoint", "reason"],
    ),
    event(
        Group::Stores,
        "error",
        "the store's layout record does not have the seal of this gateway; its routes answer 503. If `seal` is new, run `authgate token reseal`. If the store was sealed before, another program has written to it: find out which, and fill it again",
        &["store", "endpoint", "reason"],
    ),
    event(
        Group::Providers,
        "info",
        "the introspection endpoint answers again",
        &["authenticator"],
    ),
    event(
        Group::Providers,
        "info",
        "the keys can be fetched again",
        &["authenticator", "keys"],
    ),
    event(
        Group::Providers,
        "info",
        "the keys were fetched, and are in use",
        &["authenticator", "keys", "kids"],
    ),
    event(
        Group::Providers,
        "warn",
        "a token could not be introspected; requests with tokens that are not cached get 503",
        &["authenticator", "reason", "times"],
    ),
    event(
        Group::Providers,
        "warn",
        "the keys could not be fetched; the present ones are used until max_stale",
        &["authenticator", "keys", "reason", "max_stale"],
    ),
    event(
        Group::Providers,
        "warn",
        "a key of the set is not used",
        &["authenticator", "keys", "reason"],
    ),
    event(
        Group::Providers,
        "error",
        "the keys are older than max_stale; requests that need them get 503 until a fetch succeeds",
        &["authenticator", "keys"],
    ),
    event(
        Group::Providers,
        "error",
        "the keys could not be fetched; requests that need them get 503 until a fetch succeeds",
        &["authenticator", "keys", "reason"],
    ),
    event(
        Group::Certificates,
        "info",
        "ordering a certificate",
        &["acme.domain", "directory"],
    ),
    event(
        Group::Certificates,
        "info",
        "a certificate was obtained",
        &["acme.domain", "expires", "challenge"],
    ),
    event(
        Group::Certificates,
        "warn",
        "ignored: this certificate is not for the domain",
        &["acme.domain", "file"],
    ),
    event(
        Group::Certificates,
        "warn",
        "a stored certificate cannot be used",
        &["acme.domain", "reason"],
    ),
    event(
        Group::Certificates,
        "error",
        "no certificate could be obtained; TLS handshakes for this domain fail",
        &["acme.domain", "reason", "failed", "retry"],
    ),
    event(
        Group::Certificates,
        "error",
        "the certificate could not be renewed; the present one is served",
        &["acme.domain", "reason", "failed", "retry", "expires"],
    ),
    event(
        Group::Certificates,
        "error",
        "the task that renews certificates has failed, which is a bug, and starts again; the present certificates are served",
        &["reason", "retry"],
    ),
    event(
        Group::Admin,
        "info",
        "revoked",
        &["kind", "store", "outcome", "client.ip"],
    ),
    event(
        Group::Admin,
        "info",
        "nothing to revoke: no authenticator accepts the token",
        &["kind", "outcome", "client.ip"],
    ),
    event(Group::Admin, "info", "not revoked", &["outcome", "client.ip", "reason"]),
    event(
        Group::Admin,
        "warn",
        "a request to the admin listener was refused",
        &["client.ip", "reason", "times"],
    ),
    event(
        Group::Admin,
        "warn",
        "a listener failed to accept; trying again",
        &["reason", "times"],
    ),
    event(
        Group::Admin,
        "warn",
        "queued connections could not be accepted and are lost",
        &["reason"],
    ),
    event(
        Group::Admin,
        "warn",
        "revoked, and no replica has confirmed it: if the primary is lost now, the revocation may be lost too",
        &["kind", "store", "outcome", "client.ip"],
    ),
    event(Group::Admin, "warn", "not revoked", &["outcome", "client.ip", "reason"]),
    event(
        Group::Admin,
        "error",
        "a revocation has stopped unexpectedly",
        &["reason"],
    ),
    event(
        Group::Observation,
        "warn",
        "the application has answered an observed request otherwise than the gateway would",
        &[
            "route",
            "ours",
            "theirs",
            "reason",
            "detail",
            "challenge.ours",
            "challenge.theirs",
            "user.id",
            "http.method",
            "http.target",
            "request.id",
            "times",
        ],
    ),
    event(
        Group::Observation,
        "error",
        "requests are not recorded: the thread cannot be started",
        &["reason"],
    ),
    event(
        Group::Observation,
        "error",
        "requests are not recorded",
        &["file", "reason", "times"],
    ),
];
