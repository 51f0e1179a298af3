//! Valid files: a minimal file with every default, and a file with every key.

use std::path::Path;
use std::time::Duration;

use authgate_auth::jwt::{KeySet, TokenType, UserIdField, Users};
use authgate_auth::store::redis::Invalidation;
use authgate_auth::store::{DigestKind, Digests, StoreKind};
use authgate_auth::{AuthScheme, KeptClaims};
use authgate_core::member::MemberPath;
use authgate_core::outbound::identity::CredentialMode;
use authgate_core::policy::Policy;
use authgate_dataplane::proxy::refusal::format::RefusalFormat;
use authgate_dataplane::proxy::routes::{HostPattern, PathPattern};
use authgate_dataplane::proxy::stream_end::StreamRule;
use authgate_dataplane::telemetry::LogFormat;
use authgate_dataplane::tls::provider::TlsVersion;
use authgate_http::server::address::Address;
use authgate_http::upstream::{Balance, HostMode, Transport, UnsizedBodies};
use http::Method;
use serde_json::json;
use tracing::Level;

use super::{MINIMAL, parse, valid};
use crate::config::keys::admin;
use crate::config::keys::authenticators::cache;
use crate::config::keys::upstreams::{self as upstream, buffer, health, spool};

#[test]
fn absent_keys_have_their_documented_defaults() {
    let config = valid(MINIMAL);
    let limits = config.server.limits;
    assert_eq!(
        (limits.connections, limits.header_bytes, limits.headers),
        (20_000, 32 << 10, 100)
    );
    let requests = config.server.requests;
    assert_eq!(
        (requests.body_bytes, limits.h2_streams, requests.in_flight),
        (None, 128, 0)
    );
    assert_eq!(
        [
            limits.tls_handshake_timeout,
            limits.header_timeout,
            limits.idle_timeout,
            limits.body_read_timeout,
            config.server.drain.delay,
            config.server.drain.timeout,
        ],
        [10, 10, 75, 60, 0, 20].map(Duration::from_secs)
    );
    assert!(config.tls.is_none() && config.server.workers >= 1);
    assert_eq!(config.admin.listen, [Address::Tcp(admin::DEFAULT_LISTEN)]);
    assert!(config.admin.token.is_none() && config.admin.tls.is_none());
    assert_eq!((config.log.level, config.log.format), (Level::INFO, LogFormat::Text));
    assert!(config.log.access && !config.log.query);

    let StoreKind::Redis(redis) = &config.stores[0].kind else {
        panic!("another store")
    };
    assert_eq!(
        (redis.prefix.as_str(), redis.timeout),
        ("authgate:", Duration::from_millis(250))
    );
    assert!(redis.username.is_none() && redis.password.is_none());
    assert_eq!(redis.invalidation, Invalidation::Tracking);

    let token = &config.authenticators["token"];
    assert_eq!(
        (&token.scheme, token.header.as_str()),
        (&AuthScheme::OneOf(vec!["Token".to_owned()]), "authorization")
    );
    assert_eq!(&**token.kind.stores()[0], "redis");
    assert_eq!((token.cache.entries, token.cache.negative_entries), (100_000, 20_000));
    assert_eq!(
        [token.cache.ttl, token.cache.negative_ttl],
        [60, 5].map(Duration::from_secs)
    );

    let authenticator = &config.authenticators["jwt"];
    let jwt = authenticator.kind.as_jwt().expect("JWT settings");
    let issuer = jwt.issuers.all().next().expect("an issuer");
    assert_eq!(
        (authenticator.scheme.names(), authenticator.realm.as_deref()),
        (&["Bearer".to_owned()][..], Some("api"))
    );
    assert_eq!((issuer.token_bytes, jwt.revocation.as_deref()), (16 * 1024, None));
    assert_eq!(issuer.rules.user_id_claim, "user_id");
    assert_eq!(issuer.rules.token_type_claim.as_deref(), Some("token_type"));
    assert_eq!(issuer.rules.jti_claim.as_deref(), Some("jti"));
    assert_eq!(issuer.rules.token_types, [TokenType::Access]);
    assert!(issuer.rules.issuer.is_empty() && issuer.rules.audience.is_empty());
    assert_eq!((issuer.rules.leeway, issuer.rules.max_lifetime), (Duration::ZERO, None));
    let Users::Store {
        store,
        field,
        check_active,
        revoke_claim,
    } = &issuer.users
    else {
        panic!("other users")
    };
    assert_eq!(
        (&**store, *field, *check_active, revoke_claim.as_deref()),
        ("redis", UserIdField::Id, true, None)
    );
    assert_eq!(config.identities.claims, KeptClaims::default());

    let table = config.identities.tables.iter().next().expect("a table");
    let names: Vec<&str> = table.names().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-user-id", "x-user-name"]);
    assert!(config.strip.is_empty());

    let upstream = &config.upstreams["app"];
    assert_eq!(
        (upstream.balance, &upstream.host),
        (Balance::LeastRequest, &HostMode::Preserve)
    );
    assert_eq!(
        (
            upstream.connect_timeout,
            upstream.response_timeout,
            upstream.body_read_timeout
        ),
        (Duration::from_secs(2), Duration::from_mins(1), Duration::from_mins(1))
    );
    assert_eq!(upstream.idle_timeout, Duration::from_mins(1));
    let UnsizedBodies::Spool(spool) = &upstream.unsized_bodies else {
        panic!("{:?}", upstream.unsized_bodies)
    };
    assert_eq!(
        (&*spool.dir, spool.body, spool.total),
        (Path::new("/var/tmp"), 64 << 20, 1 << 30)
    );
    assert_eq!(
        (upstream.request_buffer, upstream.response_buffer),
        (64 << 10, 256 << 10)
    );
    assert_eq!((upstream.retries, upstream.servers[0].weight), (1, 1));

    let route = &config.routes[0];
    assert_eq!(route.matches.path, PathPattern::Prefix("/api".into()));
    assert_eq!(
        (&route.matches.host, route.matches.methods.len()),
        (&HostPattern::Any, 0)
    );
    assert!(matches!(&route.rules.policy, Policy::Authenticated { optional: false, require } if require.is_empty()));
    assert_eq!(
        route.rules.refusal_format,
        RefusalFormat::Drf {
            challenge: Some(http::HeaderValue::from_static("Token")),
            token_types: vec![vec![], vec![TokenType::Access]],
        }
    );
    assert_eq!(
        (
            route.rules.credential,
            route.rules.body_bytes,
            route.rules.response_timeout,
            route.rules.streams
        ),
        (CredentialMode::Opaque, None, None, StreamRule::End)
    );
    assert_eq!(config.largest_leeway(), Duration::ZERO);
}

#[test]
fn the_manual_states_these_defaults() {
    let manual = concat!(
        include_str!("../../../../../docs/operations/monitor.md"),
        include_str!("../../../../../docs/operations/cache.md"),
        include_str!("../../../../../docs/operations/upstreams.md"),
        include_str!("../../../../../docs/operations/bodies.md"),
    );
    let seconds = |time: Duration| format!("{} s", time.as_secs());
    let kib = |bytes: usize| format!("{} KiB", bytes / 1024);
    for text in [
        format!("`[admin] listen` ({})", admin::DEFAULT_LISTEN),
        format!("`cache.ttl` ({})", seconds(cache::TTL.default())),
        format!("`negative_ttl` ({})", seconds(cache::NEGATIVE_TTL.default())),
        format!("`idle_timeout` ({}", seconds(upstream::IDLE_TIMEOUT.default())),
        format!(
            "`body_read_timeout` ({})",
            seconds(upstream::BODY_READ_TIMEOUT.default())
        ),
        format!("`buffer.request` ({})", kib(buffer::REQUEST.default())),
        format!("`buffer.response` ({})", kib(buffer::RESPONSE.default())),
        format!("interval = \"{}s\"", health::INTERVAL.default().as_secs()),
        format!(
            "`spool = {{ dir = {:?}, body = \"{}MiB\", total = \"{}GiB\" }}`",
            spool::DIR.default(),
            spool::BODY.default() >> 20,
            spool::TOTAL.default() >> 30
        ),
    ] {
        assert!(manual.contains(&text), "docs/operations does not state {text}");
    }
}

#[test]
fn every_supported_key_is_read() {
    let config = valid(include_str!("full.toml"));
    let limits = config.server.limits;
    assert_eq!((config.server.listen.len(), config.server.workers), (2, 3));
    assert_eq!(
        (limits.connections, limits.header_bytes, limits.headers),
        (7, 9 * 1024, 8)
    );
    assert_eq!(
        (config.server.requests.body_bytes, limits.h2_streams),
        (Some(5_000_000), 9)
    );
    let seconds = [
        limits.tls_handshake_timeout,
        limits.header_timeout,
        limits.idle_timeout,
        limits.body_read_timeout,
        config.server.drain.delay,
        config.server.drain.timeout,
    ];
    assert_eq!(
        seconds.map(|duration| duration.as_secs()),
        [1, 2, 180, 4 * 3600, 5 * 86400, 6]
    );
    let tls = config.tls.as_ref().expect("a table");
    assert_eq!((tls.certificates.len(), tls.min_version), (1, TlsVersion::Tls13));
    let listen: Vec<String> = config.admin.listen.iter().map(Address::to_string).collect();
    assert_eq!(listen, ["0.0.0.0:9902", "unix:/run/authgate/admin.sock"]);
    assert!(config.admin.token.is_some());
    assert!(config.admin.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()));
    assert_eq!(config.admin.hosts, ["authgate.internal"]);
    assert_eq!((config.log.level, config.log.format), (Level::DEBUG, LogFormat::Json));
    assert!(!config.log.access && config.log.query);

    let stores: Vec<&str> = config.stores.iter().map(|store| &*store.name).collect();
    assert_eq!(stores, ["cache", "file"]);
    let StoreKind::Redis(redis) = &config.stores[0].kind else {
        panic!("another store")
    };
    assert_eq!((redis.prefix.as_str(), redis.timeout), ("x:", Duration::from_secs(1)));
    assert_eq!(redis.invalidation, Invalidation::Off);
    let digests = Digests::new(&[DigestKind::Sha512HexKey, DigestKind::Sha256]);
    assert_eq!(Some(redis.digests), digests);
    assert_eq!(redis.username.as_deref(), Some("ada"));
    assert_eq!(
        redis.password.as_ref().map(|password| password.expose().as_str()),
        Some(env!("CARGO_PKG_NAME"))
    );

    let token = &config.authenticators["token"];
    assert_eq!(
        (&token.scheme, token.header.as_str()),
        (
            &AuthScheme::OneOf(vec!["Token".to_owned(), "Key".to_owned()]),
            "x-api-key"
        )
    );
    assert_eq!(
        (&**token.kind.stores()[0], token.cache.entries, token.cache.ttl),
        ("file", 0, Duration::ZERO)
    );
    let authenticator = &config.authenticators["jwt"];
    let jwt = authenticator.kind.as_jwt().expect("JWT settings");
    let issuer = jwt.issuers.all().next().expect("an issuer");
    assert_eq!(
        (authenticator.scheme.names().join(" "), authenticator.realm.as_deref()),
        ("JWT Bearer".to_owned(), Some("shop"))
    );
    let algorithms: Vec<&str> = issuer.keys.keys().iter().map(|key| key.algorithm().name()).collect();
    assert_eq!(algorithms, ["RS256", "ES256", "EdDSA", "HS256"]);
    assert!(matches!(issuer.keys, KeySet::Static(_)));
    assert_eq!(issuer.keys.keys()[0].kid(), Some("first"));
    let rules = &issuer.rules;
    assert_eq!(
        (rules.issuer.join(" "), rules.audience.join(" ")),
        ("me".to_owned(), "a b".to_owned())
    );
    assert_eq!(
        (rules.leeway, rules.max_lifetime),
        (Duration::from_secs(30), Some(Duration::from_hours(1)))
    );
    assert_eq!(
        (rules.user_id_claim.as_str(), rules.jti_claim.as_deref()),
        ("uid", Some("id"))
    );
    assert_eq!(rules.token_type_claim.as_deref(), Some("kind"));
    assert_eq!(rules.token_types, [TokenType::Access, TokenType::Sliding]);
    assert_eq!((issuer.token_bytes, jwt.revocation.as_deref()), (4096, Some("cache")));
    let Users::Store {
        store,
        field,
        check_active,
        revoke_claim,
    } = &issuer.users
    else {
        panic!("other users")
    };
    assert_eq!(
        (&**store, *field, *check_active),
        ("file", UserIdField::Username, false)
    );
    assert_eq!(revoke_claim.as_deref(), Some("pw"));
    assert_eq!(config.identities.claims.claims, ["level", "org", "tenant"]);
    assert!(config.identities.claims.groups && config.identities.claims.scopes);
    let authenticator = &config.authenticators["plain"];
    let plain = authenticator.kind.as_jwt().expect("JWT settings");
    let plain = plain.issuers.all().next().expect("an issuer");
    assert!(matches!(&plain.users, Users::Claims { username_claim } if username_claim == "name"));
    assert_eq!(
        (plain.rules.user_id_claim.as_str(), plain.rules.jti_claim.as_deref()),
        ("sub", None)
    );
    assert!(plain.rules.issuer.is_empty() && plain.rules.audience.is_empty());
    assert_eq!(config.largest_leeway(), Duration::from_secs(30));

    let table = config.identities.tables.iter().next().expect("a table");
    let names: Vec<&str> = table.names().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-who", "x-org", "x-team"]);
    assert_eq!(config.strip, ["X-Internal"]);

    let upstream = &config.upstreams["app"];
    let servers: Vec<(Transport, &str)> = upstream
        .servers
        .iter()
        .map(|server| (server.transport.clone(), server.authority.as_str()))
        .collect();
    assert_eq!(
        servers,
        [
            (Transport::Http, "app.internal:80"),
            (Transport::Https, "[::1]:443"),
            (Transport::Http, "b:81")
        ]
    );
    assert_eq!(
        (upstream.balance, &upstream.host),
        (Balance::RoundRobin, &HostMode::Server)
    );
    assert_eq!(
        (upstream.body_read_timeout, upstream.idle_timeout),
        (Duration::from_secs(3), Duration::from_secs(4))
    );
    let UnsizedBodies::Spool(spool) = &upstream.unsized_bodies else {
        panic!("{:?}", upstream.unsized_bodies)
    };
    let (dir, body, total) = (&*spool.dir, spool.body, spool.total);
    assert!(
        dir.ends_with("certs-example/.") && (body, total) == (1 << 20, 2 << 20),
        "{dir:?}"
    );
    let check = upstream.health_check.as_ref().expect("it is checked");
    assert_eq!(
        check.host.as_ref().map(http::HeaderValue::as_bytes),
        Some(&b"check.example"[..])
    );
    assert!(matches!(
        config.upstreams["other"].unsized_bodies,
        UnsizedBodies::Refuse
    ));
    assert!(matches!(&config.upstreams["other"].host, HostMode::Name(name) if name == "shop.example"));

    let [admin, anyone, open] = config.routes.as_slice() else {
        panic!("{} routes", config.routes.len())
    };
    assert_eq!(admin.matches.host, HostPattern::Subdomains("example.com".into()));
    assert_eq!(admin.matches.path, PathPattern::Exact("/admin".into()));
    assert_eq!(admin.matches.methods, [Method::GET, Method::POST]);
    assert_eq!(
        admin.rules.refusal_format,
        RefusalFormat::Drf {
            challenge: Some(http::HeaderValue::from_static("JWT realm=\"shop\"")),
            token_types: vec![vec![TokenType::Access, TokenType::Sliding], vec![]],
        }
    );
    let Policy::Authenticated { require, .. } = &admin.rules.policy else {
        panic!("public")
    };
    assert_eq!(
        (require.groups.any.join(" "), require.scopes.all.join(" ")),
        ("staff".to_owned(), "a b".to_owned())
    );
    assert_eq!(
        require.claims,
        [
            (MemberPath::from_name("tenant"), json!("acme")),
            (MemberPath::from_name("level"), json!(-3))
        ]
    );
    assert_eq!(admin.rules.body_bytes, Some(None));
    let websocket = admin.rules.websocket.as_ref().expect("a table");
    assert_eq!(websocket.origins.0, ["https://a.example", "http://localhost:3000"]);
    assert_eq!(
        (websocket.subprotocol, websocket.cookie.as_deref()),
        (true, Some("__Host-key"))
    );
    assert_eq!(
        (websocket.scheme.as_str(), websocket.header.as_str()),
        ("key", "x-api-key")
    );
    assert_eq!(
        (
            admin.rules.credential,
            admin.rules.response_timeout,
            admin.rules.streams
        ),
        (CredentialMode::Remove, Some(Duration::from_secs(9)), StreamRule::Keep)
    );
    assert!(matches!(
        &anyone.rules.policy,
        Policy::Authenticated { optional: true, .. }
    ));
    assert_eq!(
        (anyone.rules.refusal_format.has_challenge(), anyone.rules.credential),
        (false, CredentialMode::Keep)
    );
    assert_eq!(
        (&open.rules.policy, open.rules.authenticate.len()),
        (&Policy::Public, 0)
    );
}

#[test]
fn socket_paths_are_relative_to_the_file_and_need_no_tls() {
    let text = MINIMAL.replace(
        "listen = [\"127.0.0.1:8443\"]",
        "listen = [\"unix:gate.sock\", \"unix:/run/gate.sock\"]\ntrusted_proxies = [\"unix\"]\nproxy_protocol = true",
    );
    let loaded = parse("gateway.toml", &text, Path::new("/etc/authgate"));
    let config = loaded.expect("a good file").config;
    let listen: Vec<String> = config.server.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["unix:/etc/authgate/gate.sock", "unix:/run/gate.sock"]);
    assert!(config.server.proxies.trusted.unix && config.server.proxies.trusted.networks.is_empty());
}
