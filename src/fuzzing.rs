//! Doors for fuzzers: one function for each reader of bytes that strangers send or people write. Each takes any bytes, and panics
//! where something holds no longer that must always hold. Not part of the library's interface.
//!
//! `fuzz/` opens them under libFuzzer; `tests/it/fuzzing.rs` opens the same ones on stable Rust, for a fixed budget.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;

use crate::auth::jwt::keys::{Algorithm, VerificationKey};
use crate::auth::jwt::sign::SigningKey;
use crate::auth::jwt::{self, JwtAuthenticator, Kept, KeySet, Rules, Settings, Users};
use crate::auth::record::{self, TokenRecord, UserRecord};
use crate::auth::{Authenticator, Chain, Now, Verdict, cache};
use crate::credential::{Judge, Presented, Shape};
use crate::path::RequestPath;
use crate::proxy::routes::{Found, HostPattern, PathPattern, Place, RouteId, RouteTable};
use crate::secret::Secret;

const SECRET: &[u8] = b"a secret of the fuzzer, of more than 32 bytes";

/// Lines of a credential's header, separated by line feeds.
pub fn credential(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    let lines: Vec<HeaderValue> = bytes
        .split(|byte| *byte == b'\n')
        .take(8)
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
        .collect();
    for line in &lines {
        headers.append(AUTHORIZATION, line.clone());
    }
    let presented = Presented::from_headers(&headers, &AUTHORIZATION);
    let Some((words, judge)) = presented.words() else {
        assert!(lines.is_empty(), "a line was lost");
        return;
    };
    assert_eq!(
        judge == Judge::InFull,
        lines.len() == 1,
        "several lines can be accepted"
    );
    let all: Vec<&[u8]> = words.iter().collect();
    for word in &all {
        assert!(
            !word.is_empty() && !word.iter().any(|byte| b" \t".contains(byte)),
            "a word with a blank"
        );
    }
    let words = match words.shape() {
        Shape::Empty => 0,
        Shape::Scheme(_) => 1,
        Shape::Pair(..) => 2,
        Shape::More(_) => 3,
    };
    assert_eq!(words, all.len().min(3));
}

/// A token: nobody but the holder of the key makes one that verifies, not by changing a good one either.
pub fn jws(bytes: &[u8]) {
    static GOOD: OnceLock<String> = OnceLock::new();
    let good = GOOD.get_or_init(|| sign(r#"{"alg":"HS256"}"#, br#"{"user_id":"1","exp":9999999999}"#));
    let settings = &settings();
    let verifies = |token: &[u8]| jwt::verified_payload(settings, token).is_ok();
    assert!(verifies(good.as_bytes()));
    assert!(
        !verifies(bytes) || is_padding_of(bytes, good),
        "a token that nobody signed"
    );
    // The bytes as changes: a place, and what stands there.
    let mut changed = good.clone().into_bytes();
    for pair in bytes.chunks_exact(2) {
        let at = usize::from(pair[0]) % changed.len();
        changed[at] = pair[1];
    }
    assert!(
        !verifies(&changed) || is_padding_of(&changed, good),
        "a changed token verifies"
    );
}

fn is_padding_of(token: &[u8], good: &str) -> bool {
    String::from_utf8_lossy(token).replace('=', "") == good.replace('=', "")
}

/// The payload of a token whose signature holds: whoever is accepted has a time, and an id that can travel.
pub fn claims(bytes: &[u8]) {
    let now = Now {
        unix_ms: 1_700_000_000_500,
        uptime_ms: 0,
    };
    let token = sign(r#"{"alg":"HS256"}"#, bytes);
    let mut headers = HeaderMap::new();
    let Ok(value) = HeaderValue::try_from(format!("Bearer {token}")) else {
        return;
    };
    headers.insert(AUTHORIZATION, value);
    let shared = jwt::Shared::new(settings(), Arc::from([]));
    let jwt = Authenticator::Jwt(JwtAuthenticator::new(shared, None, None));
    let chain = Chain::new(vec![jwt.into()]);
    let verdict = chain.authenticate(&headers, now).now_or_never();
    let Some(Ok(verdict)) = verdict else {
        panic!("there is no store that could be waited for, or fail");
    };
    match verdict {
        Verdict::Pass => panic!("the scheme is the authenticator's"),
        Verdict::Refuse(_) => {}
        Verdict::Accept(identity) => {
            let claims: Value = serde_json::from_slice(bytes).expect("it was read before");
            let exp = claims["exp"].as_f64().expect("an end that is a number");
            assert!(exp >= 1_700_000_001.0, "it has expired");
            assert!(!identity.facts().id.as_str().is_empty());
            assert!(
                HeaderValue::from_str(identity.facts().id.as_str()).is_ok() || !identity.facts().id.as_str().is_ascii()
            );
        }
    }
}

/// A record of the store: what is read is written as it was understood.
pub fn record(bytes: &[u8]) {
    if let Ok(token) = record::parse::<TokenRecord>("a token", bytes) {
        let written = serde_json::to_vec(&token).expect("records can be written");
        let again = record::parse::<TokenRecord>("a token", &written).expect("what was written can be read");
        assert_eq!(token, again);
    }
    if let Ok(user) = record::parse::<UserRecord>("a user", bytes) {
        let written = serde_json::to_vec(&user).expect("records can be written");
        let again = record::parse::<UserRecord>("a user", &written).expect("what was written can be read");
        assert_eq!(user, again);
    }
    let _ = record::parse_seconds(bytes);
}

/// A configuration: it can be used, or there is a problem that says why, and can be shown.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A file may be named; not one without an end.
    if text.contains("/dev") || text.contains("/proc") || text.contains("..") {
        return;
    }
    if let Err(error) = crate::config::parse("gateway.toml", text, Path::new("")) {
        let shown = error.render(crate::config::Look::Plain);
        assert!(shown.contains("gateway.toml"), "a problem without a place: {shown}");
    }
}

/// A path: its readings are bounded, and no spelling of one route's path leads to another route.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(path) = RequestPath::parse(text) else { return };
    assert_eq!(path.as_str(), text, "it travels as it came");
    if let Ok(readings) = path.readings() {
        assert_eq!(readings.sent, bytes);
        assert!(readings.others.len() < 64, "{} readings", readings.others.len());
        let bytes: usize = readings.others.iter().map(Vec::len).sum();
        assert!(bytes <= 128 * 1024, "{bytes} bytes of readings");
    }
    let table = table();
    let Ok(found) = table.find("host", path, &Method::GET) else {
        return;
    };
    // Whatever a server does first with a path, it is still the same route.
    for other in [
        decoded(text),
        text.to_ascii_lowercase(),
        text.replace('\\', "/"),
        collapsed(text),
    ] {
        let Ok(other) = RequestPath::parse(&other) else {
            continue;
        };
        if let Ok(again) = table.find("host", other, &Method::GET) {
            assert_eq!(found, again, "{text:?} is {:?} too", other.as_str());
        }
    }
    let admin = |found: &Found<'_>| matches!(found, Found::Route(RouteId(1)));
    let plain = decoded(&decoded(text)).to_ascii_lowercase().replace('\\', "/");
    let reaches_admin = plain.split(['/', ';']).any(|segment| segment == "admin");
    assert!(!admin(&found) || reaches_admin, "{text:?} is nobody's way to /admin");
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
}

fn collapsed(text: &str) -> String {
    let mut text = text.to_owned();
    while text.contains("//") {
        text = text.replace("//", "/");
    }
    text
}

fn table() -> RouteTable {
    let place = |path: PathPattern| Place {
        host: HostPattern::Any,
        path,
        methods: Vec::new(),
    };
    let places = [
        place(PathPattern::Below("/api".into())),
        place(PathPattern::Below("/admin".into())),
        place(PathPattern::Exact("/api/login".into())),
    ];
    RouteTable::new(&places, |one, other| one == other)
}

fn sign(header: &str, payload: &[u8]) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(payload));
    let key = SigningKey::new(Algorithm::HS256, None, &Secret::new(SECRET.to_vec())).expect("a secret signs");
    let signature = key.signature(signed.as_bytes()).expect("a secret signs");
    format!("{signed}.{}", encode(&signature))
}

/// Of SimpleJWT's stateless authenticator, without the claims that fuzzers would only have to guess.
fn settings() -> Settings {
    let key = VerificationKey::from_secret(Algorithm::HS256, None, &Secret::new(SECRET.to_vec()));
    Settings {
        name: "jwt".into(),
        schemes: vec!["Bearer".to_owned()],
        header: AUTHORIZATION,
        realm: "api".to_owned(),
        keys: KeySet::Static(vec![key.expect("a secret verifies")]),
        token_bytes: 16 * 1024,
        rules: Rules {
            token_type_claim: None,
            jti_claim: None,
            ..Rules::simplejwt()
        },
        users: Users::Claims {
            username_claim: "username".to_owned(),
        },
        revocation: None,
        cache: cache::Settings {
            entries: 0,
            negative_entries: 0,
            ..cache::Settings::default()
        },
        kept: Kept::default(),
    }
}
