//! `[server]`, `[server.limits]`, `[server.drain]` and `[forwarded]`.

use std::time::Duration;

use authgate_http::server::limits::Limits;
use bytesize::ByteSize;

use super::tls;
use crate::config::WatchMode;
use crate::config::reader::types::{Count, Count32, Flag, Size, SizeOrUnlimited, Span, Words};
use crate::config::reader::{DefaultKey, Form, Key, Raw, Shape, Sub, Table};

pub(crate) static TABLE: Table = Table::new(
    "The listeners for clients. This table is required.",
    &[
        &LISTEN,
        &ALLOW_CLEARTEXT,
        &TLS,
        &REDIRECT_HTTP,
        &WORKERS,
        &WATCH,
        &TRUSTED_PROXIES,
        &PROXY_PROTOCOL,
        &LIMITS,
        &DRAIN,
    ],
);

/// An address, or a socket file.
pub(crate) const LISTEN_ADDRESS: Form =
    Form::new("an IP address and a port, or a socket file such as `\"unix:/run/authgate/gate.sock\"`");

pub(crate) static LISTEN: Key<Raw> = Key::new("listen", Raw(|| Shape::Text(LISTEN_ADDRESS).non_empty_list()))
    .required()
    .example(r#"listen = ["127.0.0.1:8443"]"#)
    .text(
        "The addresses that the gateway listens on. All of them serve HTTP/1.1 and HTTP/2. Socket files are \
         always without TLS. Port 0 lets the system choose.",
    )
    .errors(&[
        "An address beyond loopback has no TLS: add `[server.tls]`, or `allow_cleartext = true` if a proxy in front terminates TLS.",
        "An address is listed twice.",
        "The path of a socket file is longer than the system allows.",
    ]);

pub(crate) static ALLOW_CLEARTEXT: DefaultKey<Flag> = Key::new("allow_cleartext", Flag)
    .or(false)
    .example("allow_cleartext = true")
    .text(
        "Accepts clients of other machines without TLS. Only for a gateway behind a proxy that terminates TLS: credentials cross the \
         network as plain text.",
    );

pub(crate) static TLS: Key<Sub> = Key::new("tls", Sub(&tls::SERVER))
    .example(r#"tls = { certificates = [{ chain = "server.pem", key = "server.key" }] }"#)
    .absent("no TLS")
    .text("TLS on all TCP addresses of `listen`.");

pub(crate) static REDIRECT_HTTP: Key<Raw> = Key::new(
    "redirect_http",
    Raw(|| Shape::text("an IP address and a port").non_empty_list()),
)
.example(r#"redirect_http = ["0.0.0.0:80"]"#)
.absent("no such listener")
.text(
    "Addresses without TLS on which clients are redirected to https, with status 308, to the first TCP address of `listen`. With \
     `server.tls.acme` they also answer HTTP-01 challenges.",
)
.errors(&["There is no `[server.tls]` to redirect to.", "An address is also in `listen`."]);

pub(crate) static WORKERS: DefaultKey<Count> = Key::new("workers", Count { min: 0, max: 1024 })
    .or(0)
    .unit("threads")
    .example("workers = 4")
    .text("How many threads serve requests. 0: one for each core. A change needs a restart.");

pub(crate) static WATCH: DefaultKey<Words<WatchMode>> = Key::new(
    "watch",
    Words(&[
        ("off", WatchMode::Off),
        ("keys", WatchMode::Keys),
        ("all", WatchMode::All),
    ]),
)
.or(WatchMode::Keys)
.text(
    "Which files cause a reload when they change. `keys`: the files that the configuration names, such as certificates, keys and \
     secrets. `all`: the configuration too. `off`: none; SIGHUP and `authgate reload` still reload.",
);

pub(crate) static TRUSTED_PROXIES: Key<Raw> = Key::new(
    "trusted_proxies",
    Raw(|| Shape::text("a network such as `\"10.0.0.0/8\"`, one IP address, or `\"unix\"`").list()),
)
.example(r#"trusted_proxies = ["10.0.0.0/8", "unix"]"#)
.absent("no proxy is trusted: the client is the peer of the connection")
.text(
    "The proxies whose forwarding fields are believed: `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`, `X-Request-Id` and \
     `traceparent`. From other peers, these fields are removed. `unix`: the peers of socket files.",
)
.errors(&[
    "A network contains every address: every client could forge the fields.",
    "A network has bits set beyond its prefix.",
]);

pub(crate) static PROXY_PROTOCOL: Key<Flag> = Key::new("proxy_protocol", Flag)
    .example("proxy_protocol = true")
    .absent("`false`")
    .text(
        "Each connection of a trusted proxy must begin with a PROXY protocol header, version 1 or 2, which names the client. From any \
         other client, such a header is answered with 400.",
    )
    .errors(&["`trusted_proxies` is empty."]);

pub(crate) static LIMITS: Key<Sub> = Key::new("limits", Sub(&limits::TABLE))
    .example("[server.limits]\nconnections = 20000")
    .absent("the defaults of its keys")
    .text("Limits of connections and requests.");

pub(crate) static DRAIN: Key<Sub> = Key::new("drain", Sub(&drain::TABLE))
    .example("[server.drain]\ntimeout = \"20s\"")
    .absent("the defaults of its keys")
    .text("How the gateway stops.");

pub(crate) mod limits {
    use super::*;

    /// More connections than a machine has memory for.
    const MAX_CONNECTIONS: u64 = 10_000_000;

    pub(crate) static TABLE: Table = Table::new(
        "Limits of connections and requests. They hold for the whole gateway, unless the text says otherwise.",
        &[
            &CONNECTIONS,
            &HEADER_BYTES,
            &HEADERS,
            &BODY_BYTES,
            &TLS_HANDSHAKE_TIMEOUT,
            &HEADER_TIMEOUT,
            &IDLE_TIMEOUT,
            &BODY_READ_TIMEOUT,
            &H2_STREAMS,
            &IN_FLIGHT,
        ],
    );

    pub(crate) static CONNECTIONS: DefaultKey<Count> = Key::new("connections", Count { min: 1, max: MAX_CONNECTIONS })
        .or(20_000)
        .unit("connections")
        .text(
            "How many connections of clients may be open. Further ones wait in the queue of the kernel. At the start, the limit of open \
             files is raised as far as the system allows; if that is not enough, this number is lowered, with a warning.",
        );

    pub(crate) static HEADER_BYTES: DefaultKey<Size> = Key::new(
        "header_bytes",
        Size {
            // hyper's read buffer is never smaller.
            min: ByteSize::kib(8),
            max: ByteSize::mib(16),
        },
    )
    .or(32 * 1024)
    .text("The largest head of a request: its request line and all fields. A larger one gets 431, or 414 if the target alone is too long.");

    pub(crate) static HEADERS: DefaultKey<Count> = Key::new(
        "headers",
        // A `HeaderMap` holds no more than 24,576 fields and panics beyond.
        Count { min: 1, max: 10_000 },
    )
    .or(100)
    .unit("fields")
    .text("How many fields a request may have. More get 431.");

    pub(crate) static BODY_BYTES: DefaultKey<SizeOrUnlimited> = Key::new("body_bytes", SizeOrUnlimited)
        .or(None)
        .example(r#"body_bytes = "10MiB""#)
        .text("The largest body of a request. A larger one gets 413. `body_bytes` of a route takes precedence.");

    pub(crate) static TLS_HANDSHAKE_TIMEOUT: DefaultKey<Span> = Key::new("tls_handshake_timeout", Span::ABOVE_ZERO)
        .or(Duration::from_secs(10))
        .text("How long a TLS handshake may take. Then the connection is closed.");

    pub(crate) static HEADER_TIMEOUT: DefaultKey<Span> = Key::new("header_timeout", Span::ABOVE_ZERO)
        .or(Duration::from_secs(10))
        .text(
            "The time from the first byte of a request to the end of its header section. A slower client gets 408, and the connection \
             is closed.",
        );

    pub(crate) static IDLE_TIMEOUT: DefaultKey<Span> = Key::new("idle_timeout", Span::ABOVE_ZERO)
        .or(Duration::from_secs(75))
        .text(
            "How long a connection may stay open between requests. Set it longer than the idle timeout of a balancer in front, so that \
             the balancer closes first.",
        );

    pub(crate) static BODY_READ_TIMEOUT: DefaultKey<Span> = Key::new("body_read_timeout", Span::ABOVE_ZERO)
        .or(Duration::from_secs(60))
        .text("The longest time without data in a body, in either direction. Then the request fails with 408, or the connection or stream ends.");

    pub(crate) static H2_STREAMS: DefaultKey<Count32> = Key::new("h2_streams", Count32 { min: 1, max: 100_000 })
        .or(128)
        .unit("streams of one connection")
        .text("How many requests one HTTP/2 connection may have at a time.");

    pub(crate) static IN_FLIGHT: DefaultKey<Count> = Key::new(
        "in_flight",
        Count {
            min: 0,
            max: MAX_CONNECTIONS,
        },
    )
    .or(0)
    .unit("requests")
    .example("in_flight = 5000")
    .text("How many requests the gateway handles at a time. One more gets 503 with `Retry-After`. 0: no limit.");

    /// The defaults of the engine's limits, for tests of other parts.
    pub(crate) fn defaults() -> Limits {
        Limits {
            connections: CONNECTIONS.default(),
            header_bytes: HEADER_BYTES.default(),
            headers: HEADERS.default(),
            tls_handshake_timeout: TLS_HANDSHAKE_TIMEOUT.default(),
            header_timeout: HEADER_TIMEOUT.default(),
            idle_timeout: IDLE_TIMEOUT.default(),
            body_read_timeout: BODY_READ_TIMEOUT.default(),
            h2_streams: H2_STREAMS.default(),
        }
    }
}

pub(crate) mod drain {
    use super::*;

    pub(crate) static TABLE: Table = Table::new(
        "How the gateway stops after SIGTERM or SIGINT. It finishes the requests that it has.",
        &[&DELAY, &TIMEOUT],
    );

    pub(crate) static DELAY: DefaultKey<Span> = Key::new("delay", Span::ANY)
        .or(Duration::ZERO)
        .example(r#"delay = "5s""#)
        .text(
            "How long the gateway goes on accepting connections, while `/readyz` answers 503. In this time, balancers stop \
             sending requests to it.",
        );

    pub(crate) static TIMEOUT: DefaultKey<Span> = Key::new("timeout", Span::ANY)
        .or(Duration::from_secs(20))
        .text("How long requests may take to finish after that. Then their connections are closed.");
}

pub(crate) static FORWARDED: Table = Table::new(
    "Fields about the client that applications receive beside `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`. Values \
     that clients send under these names are removed.",
    &[&REAL_IP, &PORT],
);

pub(crate) static REAL_IP: DefaultKey<Flag> = Key::new("real_ip", Flag)
    .or(false)
    .example("real_ip = true")
    .text("Sends the client's address as `X-Real-IP`.");

pub(crate) static PORT: DefaultKey<Flag> = Key::new("port", Flag)
    .or(false)
    .example("port = true")
    .text("Sends the port that the client used as `X-Forwarded-Port`.");
