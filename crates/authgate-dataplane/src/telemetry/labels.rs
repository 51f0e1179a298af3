//! The label values of requests and of what the gateway does beside them: the name of each in logs and metrics, and its text for the
//! reference. `authgate_core::credential::labels` and `authgate_auth::labels` have those of credentials and stores.

use authgate_core::label_value::LabelValue;

authgate_core::table! {
    /// Requests that were answered as asked, or had no answer.
    pub static ENDINGS: LabelValue;

    FORWARDED = LabelValue::new("forwarded", "The upstream has answered.").status("the upstream's");
    KEY_SET = LabelValue::new("key_set", "The gateway has answered with its public keys: a route with `jwks = true`.").status("200, 304");
    STREAM_ENDED = LabelValue::new(
        "stream_ended",
        "The gateway has ended a WebSocket, an event stream or a gRPC call. `reason`: its credential is refused now, with the outcome that a request would have; its credential has expired; its route does not admit its user; or a reload has removed its route, or the authenticator, key or store of its credential.",
    )
    .status("the upstream's; 401 before its response")
    .action("Intended. `streams = \"keep\"` lets the streams of a route go on.");
    UPSTREAM_CUT = LabelValue::new("upstream_cut", "The body of the response is incomplete, and the client can detect that.")
        .status("the upstream's")
        .action("Look whether the application, or a proxy in front of it, crashes or has a timeout of its own.");
    UPSTREAM_SILENT = LabelValue::new(
        "upstream_silent",
        "The server sent no data for `body_read_timeout` in the middle of a response.",
    )
    .status("the upstream's")
    .action("Look at the application. Streams that are silent for long need a longer `body_read_timeout`.");
    CLIENT_GONE = LabelValue::new("client_gone", "The client has disconnected before the response, or a drain has cut the request.")
        .status("none")
        .action("If there are many of them, clients or a balancer have a shorter timeout than the application needs.");
}

authgate_core::table! {
    /// Requests that are refused for their form, their target or their connection.
    pub static REQUESTS: LabelValue;

    MALFORMED = LabelValue::new(
        "malformed",
        "The request can be read in more than one way. `reason` has the ambiguous part, and for a path the route of each reading.",
    )
    .status("400")
    .action("The client must send an unambiguous request. Many of them from one client are probes for weaknesses.");
    HEAD_TOO_SLOW = LabelValue::new("head_too_slow", "The head of the request did not arrive within `header_timeout`.")
        .status("408")
        .action("Slow clients, or an attack that keeps connections busy. The connection is closed.");
    TARGET_TOO_LONG = LabelValue::new("target_too_long", "The target exceeds `header_bytes`.")
        .status("414")
        .action("Shorten the query, or raise `server.limits.header_bytes`.");
    HEAD_TOO_LARGE = LabelValue::new("head_too_large", "The head exceeds `header_bytes` or `headers`.")
        .status("431")
        .action("Often too many cookies. Remove them, or raise `server.limits.header_bytes`.");
    NO_ROUTE = LabelValue::new("no_route", "No route has this host and path.")
        .status("404")
        .action("Add a route, or correct the path. `authgate token show --route` and `authgate jwt inspect --route` print the route of a path.");
    METHOD_NOT_ALLOWED = LabelValue::new("method_not_allowed", "Routes have the path, and none of them lists the method.")
        .status("405")
        .action("Add the method to `methods` of the route, if it is meant to be open.");
    NOT_IMPLEMENTED = LabelValue::new("not_implemented", "The method is CONNECT or TRACE.")
        .status("501")
        .action("The gateway is no forward proxy. Many of them are probes.");
    MISDIRECTED = LabelValue::new("misdirected", "The host belongs to another certificate than that of the connection.")
        .status("421")
        .action("Browsers repeat the request on a new connection. If they do not, look at the certificates for wildcard names that overlap.");
    OUTDATED_CONNECTION = LabelValue::new(
        "outdated_connection",
        "The connection was made before a reload that changed `client_auth`, raised `min_version`, or switched TLS on.",
    )
    .status("421")
    .action("Clients repeat the request on a new connection. It ends shortly after the reload.");
    OVERLOADED = LabelValue::new("overloaded", "`server.limits.in_flight` is reached.")
        .status("503")
        .action("Look for a slow upstream first. Then add gateways, or raise the limit.");
}

authgate_core::table! {
    /// Requests whose body is refused.
    pub static BODIES: LabelValue;

    BODY_BROKEN = LabelValue::new("body_broken", "The client has disconnected in the middle of the body, or its framing is invalid.")
        .status("400")
        .action("Nothing, unless one client has many of them.");
    BODY_TOO_SLOW = LabelValue::new("body_too_slow", "The client sent no data for `body_read_timeout`.")
        .status("408")
        .action("Slow clients, or an attack that keeps workers of the application busy.");
    BODY_WITHOUT_LENGTH = LabelValue::new("body_without_length", "The body has no length, and `unsized = \"refuse\"`.")
        .status("411")
        .action("The client must send `Content-Length`. Or choose another `unsized` for the upstream.");
    BODY_TOO_LARGE = LabelValue::new("body_too_large", "The body exceeds `body_bytes`.")
        .status("413")
        .action("Raise `body_bytes` of the route, if such bodies are meant to be accepted.");
    SPOOL_FULL = LabelValue::new("spool_full", "`spool.total` is used up, or there are 1,024 files.")
        .status("503")
        .action("Raise `spool.total`, or look for uploads that the application reads slowly.");
    SPOOL_FAILED = LabelValue::new("spool_failed", "The disk of the spool is full, broken or too slow. `reason` has the error.")
        .status("503")
        .action("Look at the disk that has `spool.dir`.");
}

authgate_core::table! {
    /// Requests that the rules of their route do not admit.
    pub static RULES: LabelValue;

    NO_CREDENTIAL = LabelValue::new("no_credential", "The route needs a credential, and the request has none.")
        .status("401")
        .action("The client must log in. If it sends a credential, compare its scheme and header with the authenticators of the route.");
    REPEATED_CREDENTIAL = LabelValue::new(
        "repeated_credential",
        "The request has several credentials, with `errors = \"problem\"` or on a WebSocket.",
    )
    .status("400")
    .action("The client must send one credential.");
    NOT_ALLOWED = LabelValue::new(
        "not_allowed",
        "The user does not meet `require`. `reason` has each group, scope and claim that is missing.",
    )
    .status("403")
    .action("Give the user the group or scope, or the client another token.");
    ORIGIN_NOT_LISTED = LabelValue::new(
        "origin_not_listed",
        "A WebSocket has a credential from a page whose origin `websocket.origins` does not list.",
    )
    .status("403")
    .action("Add the origin if the page is yours. Otherwise another site tries to use the log-ins of your users.");
    IDENTITY_NOT_SIGNED = LabelValue::new("identity_not_signed", "The identity of the user could not be signed. `reason` has the error.")
        .status("503")
        .action("Look at the first key of `[identity] signed`.");
}

authgate_core::table! {
    /// Upstreams that have not answered.
    pub static UPSTREAMS: LabelValue;

    UPSTREAM_UNREACHABLE = LabelValue::new("upstream_unreachable", "No server of the upstream accepts a connection.")
        .status("502")
        .action("`reason` has the error. Look whether the application runs, and whether its address is right.");
    UPSTREAM_NO_RESPONSE = LabelValue::new("upstream_no_response", "The response has ended early or is invalid. `reason` has the error.")
        .status("502")
        .action("Look at the log of the application for a crash. The keep-alive timeout of the application should be longer than `idle_timeout` of the upstream.");
    UPSTREAM_UNEXPECTED_UPGRADE = LabelValue::new("upstream_unexpected_upgrade", "The server has answered 101 (Switching Protocols), and the request did not ask for it.")
        .status("502")
        .action("A bug of the application.");
    UPSTREAM_NO_UPGRADE = LabelValue::new("upstream_no_upgrade", "An upstream with HTTP/2 cannot switch protocols.")
        .status("502")
        .action("Write `http://` in place of `h2c://` in `servers`. An `https://` server must not choose HTTP/2.");
    UPSTREAM_NOT_SWITCHED = LabelValue::new(
        "upstream_not_switched",
        "The server has answered a WebSocket request over HTTP/2 with 2xx, and has not switched.",
    )
    .status("502")
    .action("The path is no WebSocket in the application.");
    UPSTREAM_CONNECT_TIMEOUT = LabelValue::new("upstream_connect_timeout", "No server accepts a connection within `connect_timeout`.")
        .status("504")
        .action("Look at the network, and at the load of the servers.");
    UPSTREAM_TIMEOUT = LabelValue::new("upstream_timeout", "The response did not begin within `response_timeout`.")
        .status("504")
        .action("Look for slow requests in the application: `authgate_upstream_duration_seconds`.");
    UPSTREAM_FULL = LabelValue::new("upstream_full", "`in_flight` of the upstream is reached.")
        .status("503")
        .action("The application is too slow for the load. Add servers, or raise the limit.");
}

authgate_core::table! {
    /// An accepted credential.
    pub static ACCEPTANCE: LabelValue;

    ACCEPTED = LabelValue::new("accepted", "The credential is valid.");
}

authgate_core::table! {
    /// The classes of statuses.
    pub static STATUS_CLASSES: LabelValue;

    INFORMATIONAL = LabelValue::new("1xx", "101: the protocol was switched.");
    SUCCESSFUL = LabelValue::new("2xx", "Success.");
    REDIRECTION = LabelValue::new("3xx", "Redirection.");
    CLIENT_ERROR = LabelValue::new("4xx", "The fault of the client.");
    SERVER_ERROR = LabelValue::new("5xx", "The fault of the gateway, of what it asks, or of the application.");
    NO_STATUS = LabelValue::new("none", "The client has disconnected before the response.");
}

authgate_core::table! {
    /// The reasons to end a stream.
    pub static STREAM_ENDS: LabelValue;

    ENDED_REFUSED = LabelValue::new("refused", "Its credential is refused now, for example because it was revoked.");
    ENDED_EXPIRED = LabelValue::new("expired", "Its credential has expired.");
    ENDED_POLICY = LabelValue::new("policy", "Its user does not meet `require`, or the route does not list its authenticator.");
    ENDED_CONFIGURATION = LabelValue::new("configuration", "A reload has removed the key, the store or the authenticator of its credential.");
    ENDED_ROUTE = LabelValue::new("route", "A reload has removed its route.");
}

authgate_core::table! {
    /// The outcomes of TLS handshakes.
    pub static HANDSHAKES: LabelValue;

    HANDSHAKE_FULL = LabelValue::new("full", "A new session.");
    HANDSHAKE_RESUMED = LabelValue::new("resumed", "A session that was resumed by a ticket.");
    HANDSHAKE_FAILED = LabelValue::new("failed", "The client does not speak TLS, has disconnected, or does not accept the gateway's certificate; or the gateway does not accept the client's certificate.")
        .action("A rise after a change of certificates means that clients do not trust the new one. `log.level = \"debug\"` logs each.");
    HANDSHAKE_TIMEOUT = LabelValue::new("timeout", "It has not ended within `tls_handshake_timeout`.");
    HANDSHAKE_CHALLENGE = LabelValue::new("challenge", "An authority has validated a domain of `acme`.");
}

authgate_core::table! {
    /// The outcomes of reloads.
    pub static RELOADS: LabelValue;

    RELOAD_APPLIED = LabelValue::new("applied", "The new configuration is in force.");
    RELOAD_REFUSED = LabelValue::new("refused", "The configuration cannot be used. The one before it stays in force.")
        .action("`authgate check` prints each problem, and so do the log and `/status.json`. A restart would fail.");
}

authgate_core::table! {
    /// What has caused a reload.
    pub static RELOAD_TRIGGERS: LabelValue;

    TRIGGER_SIGNAL = LabelValue::new("signal", "SIGHUP.");
    TRIGGER_COMMAND = LabelValue::new("command", "`POST /reload`, which `authgate reload` sends.");
    TRIGGER_FILE_CHANGE = LabelValue::new("file_change", "A file that is watched has changed.");
}

authgate_core::table! {
    /// The outcomes of `POST /revoke`.
    pub static REVOCATIONS: LabelValue;

    REVOKED = LabelValue::new("revoked", "The credential is revoked.").status("200");
    UNCONFIRMED = LabelValue::new("unconfirmed", "It is revoked, and no replica has confirmed it.")
        .status("200")
        .action("If the primary of Redis is lost now, the revocation is lost with it. Revoke again after a failover.");
    UNKNOWN = LabelValue::new("unknown", "No authenticator accepts the token: there is nothing to revoke.").status("200");
    REFUSED = LabelValue::new("refused", "The request cannot be read, or the credential cannot be revoked.")
        .status("4xx")
        .action("The response says why.");
    UNAVAILABLE = LabelValue::new("unavailable", "A store, or what would verify the token, has not answered. The credential may still be valid.")
        .status("503")
        .action("Revoke again. The outage of the store is in the log and in `/status.json`.");
}

authgate_core::table! {
    /// Why the admin listener refuses a request.
    pub static ADMIN_REFUSALS: LabelValue;

    ADMIN_TLS = LabelValue::new("tls", "The connection was made under other settings of `[admin] tls`.").status("421");
    ADMIN_HOST = LabelValue::new("host", "`Host` is no IP address, and not one of `[admin] hosts`.")
        .status("403")
        .action("Add the name to `hosts` if it is yours, such as the name by which Prometheus asks.");
    ADMIN_ORIGIN = LabelValue::new("origin", "A command has come from a page of another origin.").status("403");
    ADMIN_OTHER_SITE = LabelValue::new("other_site", "A browser has sent the request for a page of another site.").status("403");
    ADMIN_TOKEN = LabelValue::new("token", "The token of `[admin]` is missing or wrong.")
        .status("401, 403")
        .action("Compare the token of the client with the file of `[admin] token`.");
    ADMIN_COMMAND = LabelValue::new("command", "A command has come without the field `X-Authgate-Command`, or from another machine.").status("403");
}

authgate_core::table! {
    /// What came of requests for `log.record`.
    pub static RECORDINGS: LabelValue;

    RECORDED = LabelValue::new("written", "The request is in the file.");
    DROPPED = LabelValue::new("dropped", "The request is lost: the file is full or cannot be written, or the disk is too slow.")
        .action("The log says which.");
}
