//! `[stores.NAME]` of the kinds `redis` and `embedded`.

use std::time::Duration;

use authgate_auth::store::redis::Invalidation;
use authgate_auth::store::{DigestKind, Digests};

use super::{NEW, tls};
use crate::config::reader::types::{Location, SecretBytes, SecretText, Span, Special, Text, Words};
use crate::config::reader::{DefaultKey, Form, Key, Raw, Shape, Sub, Table};

/// The value of `kind` in a store's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Embedded,
    Django,
}

pub(crate) static KIND: Key<Words<Kind>> = Key::new(
    "kind",
    Words(&[
        ("redis", Kind::Redis),
        ("embedded", Kind::Embedded),
        ("django", Kind::Django),
    ]),
)
.required()
.text(
    "The kind of the store, which decides what other keys there are. `redis`: a Redis that several gateways share. `embedded`: a file, \
     for one gateway. `django`: the database of a Django application.",
);

/// A table without a valid kind.
pub(crate) static UNKNOWN: Table = Table::new("", &[&KIND]);

pub(crate) static REDIS: Table = Table::new(
    "Tokens, users and revocations in Redis 6 or later, or a compatible server. Several gateways share it.",
    &[
        &KIND,
        &MODE,
        &URL,
        &URLS,
        &SERVICE,
        &USERNAME,
        &PASSWORD,
        &TLS,
        &SENTINEL,
        &WRITER,
        &PREFIX,
        &TIMEOUT,
        &INVALIDATION,
        &DIGEST,
        &SEAL,
    ],
)
.of_kind("redis");

/// How the servers are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Single,
    Sentinel,
    Cluster,
}

pub(crate) static MODE: DefaultKey<Words<Mode>> = Key::new(
    "mode",
    Words(&[
        ("single", Mode::Single),
        ("sentinel", Mode::Sentinel),
        ("cluster", Mode::Cluster),
    ]),
)
.or(Mode::Single)
.since(NEW)
.example(r#"mode = "sentinel""#)
.text(
    "`single`: one server, in `url`. `sentinel`: `urls` names every sentinel, and they name the primary. `cluster`: `urls` names some \
     servers of a Redis Cluster, and the gateway finds the others. Replicas are never read.",
);

const REDIS_URL: Form = Form::new("a URL: `redis://HOST:PORT/DB`, `rediss://…` for TLS, or `unix:///PATH?db=0`");

pub(crate) static URL: Key<Raw> = Key::new("url", Raw(|| Shape::Text(REDIS_URL)))
    .required_if("if `mode` is `\"single\"`")
    .example(r#"url = "redis://127.0.0.1:6379/0""#)
    .text("The server. It may have a login; a password is better written in `password`.")
    .errors(&[
        "`mode` is not `\"single\"`.",
        "`url` and `password` both have a password.",
    ]);

pub(crate) static URLS: Key<Raw> = Key::new("urls", Raw(|| Shape::Text(REDIS_URL).non_empty_list()))
    .required_if("if `mode` is `\"sentinel\"` or `\"cluster\"`")
    .since(NEW)
    .example(r#"urls = ["redis://sentinel-1:26379", "redis://sentinel-2:26379", "redis://sentinel-3:26379"]"#)
    .text(
        "Every sentinel, or some servers of the cluster. With sentinels, the number at the end is the database of the primary. \
         `rediss://` means TLS to all servers.",
    )
    .errors(&[
        "`mode` is `\"single\"`.",
        "A URL has a login or is a unix socket, or the URLs differ in their scheme or database.",
    ]);

pub(crate) static SERVICE: Key<Text> = Key::new("service", Text("a name"))
    .required_if("if `mode` is `\"sentinel\"`")
    .since(NEW)
    .example(r#"service = "mymaster""#)
    .text("The name of the primary, as in `sentinel monitor`.")
    .errors(&["`mode` is not `\"sentinel\"`."]);

pub(crate) static SENTINEL: Key<Sub> = Key::new("sentinel", Sub(&sentinel::TABLE))
    .since(NEW)
    .example(r#"sentinel = { username = "gateway", password = { file = "sentinel.password" } }"#)
    .absent("sentinels need no login")
    .text("How the gateway logs in to the sentinels.")
    .errors(&["`mode` is not `\"sentinel\"`."]);

pub(crate) mod sentinel {
    use super::*;

    pub(crate) static TABLE: Table = Table::new("The login to sentinels.", &[&USERNAME, &PASSWORD, &TLS]);

    pub(crate) static USERNAME: Key<Text> = Key::new("username", Text("a name"))
        .since(NEW)
        .example(r#"username = "gateway""#)
        .absent("the default user")
        .text("The user.")
        .errors(&["`password` is missing."]);

    pub(crate) static PASSWORD: Key<SecretText> = Key::new("password", SecretText)
        .since(NEW)
        .example(r#"password = { file = "sentinel.password" }"#)
        .absent("no password")
        .text("The password.");

    pub(crate) static TLS: Key<Sub> = Key::new("tls", Sub(&tls::CLIENT))
        .since(NEW)
        .example(r#"tls = { ca = "sentinel-ca.pem" }"#)
        .absent("`tls` of the store")
        .text("TLS to the sentinels.")
        .errors(&["No URL begins with `rediss://`."]);
}

pub(crate) static USERNAME: Key<Text> = Key::new("username", Text("a name"))
    .example(r#"username = "authgate""#)
    .absent("the user of the URL, or the default user")
    .text("The user that the gateway logs in as.");

pub(crate) static PASSWORD: Key<SecretText> = Key::new("password", SecretText)
    .example(r#"password = { file = "redis.password" }"#)
    .absent("the password of the URL, or none")
    .text("The password.")
    .errors(&["`url` has a password too."]);

pub(crate) static TLS: Key<Sub> = Key::new("tls", Sub(&tls::CLIENT))
    .since(NEW)
    .example(r#"tls = { ca = "redis-ca.pem" }"#)
    .absent("with `rediss://`, the root certificates of the system")
    .text("TLS to Redis.")
    .errors(&["The URL does not begin with `rediss://`."]);

pub(crate) static WRITER: Key<Sub> = Key::new("writer", Sub(&writer::TABLE))
    .since(NEW)
    .example(r#"writer = { username = "authgate-writer", password = { file = "redis-writer.password" } }"#)
    .absent("`username` writes too")
    .text("A login of its own for what writes: `POST /revoke`, `source`, `dpop_replay` and the commands. The other login then only reads.");

pub(crate) mod writer {
    use super::*;

    pub(crate) static TABLE: Table = Table::new("The login that writes to Redis.", &[&USERNAME, &PASSWORD]);

    pub(crate) static USERNAME: Key<Text> = Key::new("username", Text("a name"))
        .required()
        .since(NEW)
        .example(r#"username = "authgate-writer""#)
        .text("The user.");

    pub(crate) static PASSWORD: Key<SecretText> = Key::new("password", SecretText)
        .required()
        .since(NEW)
        .example(r#"password = { file = "redis-writer.password" }"#)
        .text("The password.");
}

pub(crate) static PREFIX: DefaultKey<Special> = Key::new("prefix", Special(Form::new("a string without control characters")))
    .or("authgate:")
    .text("The beginning of the names of all keys in Redis. Gateways that share a database but not their tokens need different ones.");

pub(crate) static TIMEOUT: DefaultKey<Span> = Key::new("timeout", Span::ABOVE_ZERO)
    .or(Duration::from_millis(250))
    .text("The deadline for one look-up: waiting, connecting and answering together. After it, the request gets 503, unless `on_outage` allows a cached decision.");

pub(crate) static INVALIDATION: DefaultKey<Words<Invalidation>> = Key::new(
    "invalidation",
    Words(&[("tracking", Invalidation::Tracking), ("off", Invalidation::Off)]),
)
.or(Invalidation::Tracking)
.example(r#"invalidation = "off""#)
.text(
    "How changes are noticed. `tracking`: Redis reports them (`CLIENT TRACKING`), and they are in force within a second. `off`: they are \
     in force after `cache.ttl` of the authenticator.",
);

/// One digest, or several.
pub(crate) fn digest_kinds() -> Shape {
    Shape::Words(DigestKind::NAMED.iter().map(|(word, _)| *word).collect()).one_or_more()
}

pub(crate) static DIGEST: Key<Raw> = Key::new("digest", Raw(digest_kinds))
.example(r#"digest = ["sha256", "sha512"]"#)
.absent("`[\"sha256\"]`")
.text(
    "The digests of a presented token by which records are looked up. `sha256`: tokens that `authgate token` or an import wrote. \
     `sha512` and `sha512-hexkey`: tokens of django-rest-knox, from version 5 and of version 4.2.",
)
.errors(&["A digest is listed twice."]);

/// The default of `digest`.
pub(crate) const DEFAULT_DIGEST: Digests = Digests::SHA256;

pub(crate) static SEAL: Key<SecretBytes> = Key::new("seal", SecretBytes)
    .since(NEW)
    .example(r#"seal = { file = "seal.key" }"#)
    .absent("records are not sealed")
    .text(
        "A key that only gateways have. Digests and records carry an HMAC with it, so that a program which can write to Redis cannot add \
         users or tokens. Requests that need a record without it get 503.",
    )
    .errors(&["The key is too short."]);

pub(crate) static EMBEDDED: Table = Table::new(
    "Tokens, users and revocations in a file, for one gateway. It needs no server. `authgate token` and `authgate user` write the file, \
     and the gateway reads it again when it changes.",
    &[&KIND, &FILE, &DIGEST],
)
.of_kind("embedded");

pub(crate) static FILE: Key<Location> = Key::new("file", Location)
    .required()
    .example(r#"file = "tokens.toml""#)
    .text("The file. The commands create it.")
    .errors(&["Warning: the file does not exist yet. Until it does, routes that need it answer 503."]);
