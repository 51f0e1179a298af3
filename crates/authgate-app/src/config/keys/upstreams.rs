//! `[upstreams.NAME]`.

use std::time::Duration;

use authgate_http::upstream::Balance;
use bytesize::ByteSize;

use super::{identity, tls};
use crate::config::modes::UnsizedMode;
use crate::config::reader::types::{Count, Count32, Header, SecretText, Size, Span, Special, Words};
use crate::config::reader::{DefaultKey, Form, Key, Raw, Shape, Sub, Table};

pub(crate) static TABLE: Table = Table::new(
    "Servers of an application. Each of them can answer any request.",
    &[
        &SERVERS,
        &BALANCE,
        &HOST,
        &CONNECT_TIMEOUT,
        &RESPONSE_TIMEOUT,
        &BODY_READ_TIMEOUT,
        &IDLE_TIMEOUT,
        &IN_FLIGHT,
        &BUFFER,
        &UNSIZED,
        &SPOOL,
        &RETRIES,
        &HEALTH,
        &TLS,
        &SECRET_HEADER,
        &IDENTITY,
    ],
);

/// The URL of a server.
const SERVER_URL: Form = Form::matching(
    "a URL: `http://HOST:PORT`, `https://HOST:PORT`, `h2c://HOST:PORT` or `unix:/PATH`",
    "^(?:[Hh][Tt][Tt][Pp][Ss]?://|[Hh]2[Cc]://|unix:)",
);

pub(crate) static SERVERS: Key<Raw> = Key::new(
    "servers",
    Raw(|| Shape::Text(SERVER_URL).or(Shape::Table(&server::TABLE)).non_empty_list()),
)
.required()
.example(r#"servers = ["http://127.0.0.1:8000"]"#)
.text(
    "The servers. `https`: HTTP/2 if the server chooses it, else HTTP/1.1. `h2c`: HTTP/2 without TLS, for gRPC. A table adds a weight: \
     `{ url = \"http://10.0.0.7:8000\", weight = 2 }`.",
)
.errors(&["A URL has a path, a query or a login.", "A server is listed twice."]);

pub(crate) mod server {
    use super::*;

    pub(crate) static TABLE: Table = Table::new("A server with a weight.", &[&URL, &WEIGHT]);

    pub(crate) static URL: Key<Raw> = Key::new("url", Raw(|| Shape::Text(SERVER_URL)))
        .required()
        .example(r#"url = "http://127.0.0.1:8000""#)
        .text("The server.");

    pub(crate) static WEIGHT: DefaultKey<Count32> = Key::new("weight", Count32 { min: 1, max: 1000 })
        .or(1)
        .example("weight = 2")
        .text("The share of requests that the server gets, compared with the weights of the others.");
}

pub(crate) static BALANCE: DefaultKey<Words<Balance>> = Key::new(
    "balance",
    Words(&[
        ("least-request", Balance::LeastRequest),
        ("round-robin", Balance::RoundRobin),
    ]),
)
.or(Balance::LeastRequest)
.example(r#"balance = "round-robin""#)
.text("Which server gets a request. `least-request`: of two random ones, that with fewer requests. `round-robin`: each in turn.");

pub(crate) static HOST: DefaultKey<Special> = Key::new("host", Special(Form::new("`\"preserve\"`, `\"server\"`, or a host name")))
    .or("preserve")
    .example(r#"host = "app.internal""#)
    .text("The `Host` that the application receives. `preserve`: that of the client. `server`: the host and port of the server.");

pub(crate) static CONNECT_TIMEOUT: DefaultKey<Span> = Key::new("connect_timeout", Span::ABOVE_ZERO)
    .or(Duration::from_secs(2))
    .text("The deadline for a new connection: the look-up of the name, TCP and TLS together. After it, the gateway tries the next server. After the last one, the request gets 504.");

pub(crate) static RESPONSE_TIMEOUT: DefaultKey<Span> = Key::new("response_timeout", Span::ABOVE_ZERO)
    .or(Duration::from_secs(60))
    .text("The time from the last byte of a request to the head of its response. Then the client gets 504. A route can set its own.");

pub(crate) static BODY_READ_TIMEOUT: DefaultKey<Span> = Key::new("body_read_timeout", Span::ABOVE_ZERO)
    .or(Duration::from_secs(60))
    .text("The longest time without data in the body of a response. Event streams, gRPC and WebSockets have no such limit.");

pub(crate) static IDLE_TIMEOUT: DefaultKey<Span> = Key::new("idle_timeout", Span::ANY)
    .or(Duration::from_secs(60))
    .text("How long a connection to a server is kept without a request. `\"0s\"`: each request has a connection of its own.");

pub(crate) static IN_FLIGHT: DefaultKey<Count> = Key::new(
    "in_flight",
    Count {
        min: 0,
        max: 10_000_000,
    },
)
.or(0)
.unit("requests")
.example("in_flight = 200")
.text(
    "How many requests this upstream has at a time, of all workers. One more gets 503 with `Retry-After`. 0: no limit.",
);

pub(crate) static BUFFER: Key<Sub> = Key::new("buffer", Sub(&buffer::TABLE))
    .example(r#"buffer = { request = "64KiB", response = "256KiB" }"#)
    .absent("the defaults of its keys")
    .text("Buffers for bodies, so that slow clients do not occupy servers.");

pub(crate) mod buffer {
    use super::*;

    /// For each request in flight.
    const SIZE: Size = Size {
        min: ByteSize::b(0),
        max: ByteSize::mib(64),
    };

    pub(crate) static TABLE: Table = Table::new(
        "Buffers for the bodies of one request. Event streams, gRPC and WebSockets are never buffered.",
        &[&REQUEST, &RESPONSE],
    );

    pub(crate) static REQUEST: DefaultKey<Size> = Key::new("request", SIZE)
        .or(64 * 1024)
        .text("A request body of up to this size is read completely before a server is chosen. A longer one is streamed. `\"0B\"`: off.");

    pub(crate) static RESPONSE: DefaultKey<Size> = Key::new("response", SIZE)
        .or(256 * 1024)
        .text("How far a response body is read ahead while the client reads slowly. `\"0B\"`: off.");
}

pub(crate) static UNSIZED: DefaultKey<Words<UnsizedMode>> = Key::new(
    "unsized",
    Words(&[
        ("spool", UnsizedMode::Spool),
        ("stream", UnsizedMode::Stream),
        ("refuse", UnsizedMode::Refuse),
    ]),
)
.or(UnsizedMode::Spool)
.example(r#"unsized = "stream""#)
.text(
    "How a request body without a length is sent to a server that speaks HTTP/1.1, if it exceeds `buffer.request`. `spool`: by a file, and \
     then with a `Content-Length`. `stream`: in chunks, which many frameworks do not read. `refuse`: the client gets 411.",
)
.errors(&["Every server is `h2c://`, where no body needs a length."]);

pub(crate) static SPOOL: Key<Sub> = Key::new("spool", Sub(&spool::TABLE))
    .example(r#"spool = { dir = "/var/tmp", body = "64MiB", total = "1GiB" }"#)
    .absent("the defaults of its keys")
    .text("The files of `unsized = \"spool\"`.")
    .errors(&["`unsized` is not `\"spool\"`, or every server is `h2c://`."]);

pub(crate) mod spool {
    use super::*;

    const SIZE: Size = Size {
        min: ByteSize::b(1),
        max: ByteSize::tib(1024),
    };

    pub(crate) static TABLE: Table = Table::new(
        "Files for request bodies without a length. They have no name and the mode 0600.",
        &[&DIR, &BODY, &TOTAL],
    );

    pub(crate) static DIR: DefaultKey<Special> = Key::new("dir", Special(Form::matching("the path of a folder", ".")))
        .or("/var/tmp")
        .text("The folder. The gateway must be able to write to it.")
        .errors(&["The folder does not exist."]);

    pub(crate) static BODY: DefaultKey<Size> = Key::new("body", SIZE)
        .or(64 << 20)
        .text("The longest body. A longer one gets 413.");

    pub(crate) static TOTAL: DefaultKey<Size> = Key::new("total", SIZE)
        .or(1 << 30)
        .text("The space for all bodies of the upstream together. Beyond it, a request gets 503 with `Retry-After`.")
        .errors(&["It is less than `body`."]);
}

pub(crate) static RETRIES: DefaultKey<Count32> = Key::new("retries", Count32 { min: 0, max: 10 })
    .or(1)
    .unit("retries of one request")
    .text(
        "How often a request is sent again if its connection ends before the first byte of a response. Only GET, HEAD and OPTIONS without \
         a body, and never after a timeout.",
    );

pub(crate) static HEALTH: Key<Sub> = Key::new("health", Sub(&health::TABLE))
    .example(r#"health = { path = "/healthz", interval = "5s" }"#)
    .absent("servers are not checked; failures of requests still eject a server for a while")
    .text("Checks of each server.");

pub(crate) mod health {
    use super::*;

    pub(crate) static TABLE: Table = Table::new(
        "Checks of each server, by each worker. After three failed checks in a row a server is ejected, and after two successful ones it is \
         used again. A status from 200 to 399 is a success.",
        &[&PATH, &INTERVAL, &HOST],
    );

    pub(crate) static PATH: Key<Raw> = Key::new("path", Raw(|| Shape::Text(Form::matching("a path", "^/"))))
        .required()
        .example(r#"path = "/healthz""#)
        .text("The path that is requested.");

    pub(crate) static INTERVAL: DefaultKey<Span> = Key::new("interval", Span::ABOVE_ZERO)
        .or(Duration::from_secs(5))
        .text("The time between two checks, and the deadline for one.");

    pub(crate) static HOST: Key<Raw> = Key::new("host", Raw(|| Shape::text("a host name")))
        .example(r#"host = "api.example.com""#)
        .absent("`host` of the upstream if that is a name or `\"server\"`; else the first host of the routes; else `localhost`")
        .text("The `Host` of the checks. Django answers 400 to a host that is not in `ALLOWED_HOSTS`.");
}

pub(crate) static TLS: Key<Sub> = Key::new("tls", Sub(&tls::CLIENT))
    .example(r#"tls = { ca = "app-ca.pem" }"#)
    .absent("the root certificates of the system")
    .text("TLS to `https://` servers.")
    .errors(&["No server is `https://`."]);

pub(crate) static SECRET_HEADER: Key<Sub> = Key::new("secret_header", Sub(&secret_header::TABLE))
    .example(r#"secret_header = { name = "X-Gateway-Secret", value = { file = "gateway.secret" } }"#)
    .absent("no such header")
    .text(
        "A header that proves to the application that a request came through the gateway. The gateway removes it from requests \
         of clients.",
    );

pub(crate) mod secret_header {
    use super::*;

    pub(crate) static TABLE: Table = Table::new("A header with a secret that the application knows.", &[&NAME, &VALUE]);

    pub(crate) static NAME: Key<Header> = Key::new("name", Header)
        .required()
        .example(r#"name = "X-Gateway-Secret""#)
        .text("The name of the header.")
        .errors(&["The header already carries an identity or a credential."]);

    pub(crate) static VALUE: Key<SecretText> = Key::new("value", SecretText)
        .required()
        .example(r#"value = { file = "gateway.secret" }"#)
        .text("The secret.")
        .errors(&["It cannot be sent in a header."]);
}

pub(crate) static IDENTITY: Key<Sub> = Key::new("identity", Sub(&identity::OF_UPSTREAM))
    .example(r#"identity = { headers = { X-Account = "id" } }"#)
    .absent("`[identity]` applies")
    .text("What this upstream receives about the user, where it differs from `[identity]`.");
