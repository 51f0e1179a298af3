//! Entry points for fuzzers: one function for each parser of untrusted or hand-written bytes. Each function accepts any
//! bytes, and panics if an invariant is broken. They are not part of the library's public interface.
//!
//! `fuzz/` runs them under libFuzzer. `tests/it/fuzzing.rs` runs the same functions on stable Rust, with a fixed
//! budget.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, LazyLock, OnceLock};

use authgate_auth::cache::CacheSettings;
use authgate_auth::dependencies::ChangeCounters;
use authgate_auth::jwt::keys::{Algorithm, VerificationKey};
use authgate_auth::jwt::sign::SigningKey;
use authgate_auth::jwt::{self, JwtSettings, KeySet, Profile, Rules, Users};
use authgate_auth::record::{self, TokenRecord, UserRecord};
use authgate_auth::{
    Authenticator, AuthenticatorSettings, Chain, KindSettings, Now, SharedAuthenticator, Verdict, WorkerResources,
};
use authgate_core::credential::{Acceptance, Presented, Shape};
use authgate_core::path::RequestPath;
use authgate_core::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::config::{self, ReportFormat, Severity, defaults};
use crate::proxy::routes::{Found, HostPattern, PathPattern, RouteId, RouteMatch, RouteTable};

const SECRET: &[u8] = b"a secret of the fuzzer, of more than 32 bytes";
const NOW: Now = Now {
    unix_ms: 1_700_000_000_500,
    uptime_ms: 0,
};

/// The lines of a credential's header, separated by line feeds.
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
    let Some((words, acceptance)) = presented.words() else {
        assert!(lines.is_empty(), "a line was lost");
        return;
    };
    assert_eq!(
        acceptance == Acceptance::Allowed,
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
    let shape = match words.shape() {
        Shape::Empty => 0,
        Shape::Scheme(_) => 1,
        Shape::Pair(..) => 2,
        Shape::More(_) => 3,
    };
    assert_eq!(shape, all.len().min(3));

    // A valid token is accepted only if it is the only line. No other line can help it or profit from it.
    let good = HeaderValue::try_from(format!("Bearer {}", good_token())).expect("a legal value");
    headers.append(AUTHORIZATION, good);
    let chain = chain(relaxed(), 0);
    assert!(
        !accepts(&chain, &headers, NOW),
        "one of several lines was accepted: {lines:?}"
    );
}

/// A token: without the key, no input verifies, not even a changed valid token.
pub fn jws(bytes: &[u8]) {
    let settings = &settings(relaxed());
    let good = good_token();
    let verifies = |token: &[u8]| jwt::verified_payload(settings, token).is_ok();
    assert!(verifies(good.as_bytes()));
    assert!(
        !verifies(bytes) || is_good_with_padding(bytes),
        "a token without a valid signature"
    );
    // Use the bytes as changes to a valid token: a position and the new byte.
    let mut changed = good.as_bytes().to_vec();
    for pair in bytes.chunks_exact(2) {
        let at = usize::from(pair[0]) % changed.len();
        changed[at] = pair[1];
    }
    assert!(
        !verifies(&changed) || is_good_with_padding(&changed),
        "a changed token verifies"
    );
    // Use the bytes as a header with a valid signature. The header's algorithm must be that of the key.
    let token = sign(bytes, b"{}");
    if verifies(token.as_bytes()) {
        let header: Value = serde_json::from_slice(bytes).expect("a header that was read");
        assert_eq!(header["alg"], "HS256");
        assert!(header.get("crit").is_none(), "an extension that is not known");
    }
}

/// The only other accepted spelling of the same token: one with padding after the signature.
fn is_good_with_padding(token: &[u8]) -> bool {
    token.strip_suffix(b"=").unwrap_or(token) == good_token().as_bytes()
}

/// The payload of a token with a valid signature. An accepted token has an expiry time, and an id that a header can
/// hold.
pub fn claims(bytes: &[u8]) {
    let token = sign(br#"{"alg":"HS256","typ":"at+jwt"}"#, bytes);
    let mut headers = HeaderMap::new();
    let Ok(value) = HeaderValue::try_from(format!("Bearer {token}")) else {
        return;
    };
    headers.insert(AUTHORIZATION, value);
    for rules in [relaxed(), Rules::plain(), Rules::rfc9068()] {
        let user_id = rules.user_id_claim.clone();
        let (fresh, caching) = (chain(rules.clone(), 0), chain(rules, 8));
        // A cached result must equal a fresh one at every later time. Only a clock that was set back far may find an
        // old refusal.
        let same = |unix_ms: i64| {
            let now = Now { unix_ms, uptime_ms: 0 };
            let accepted = accepts(&fresh, &headers, now);
            assert_eq!(accepts(&caching, &headers, now), accepted, "cached, at {unix_ms}");
            accepted
        };
        if !same(NOW.unix_ms) {
            same(NOW.unix_ms + 1_000_000_000);
            continue;
        }
        let claims: Value = serde_json::from_slice(bytes).expect("it was read before");
        let end = whole_ms(&claims["exp"]).expect("an end that is a number");
        assert!(end > NOW.unix_ms, "it has expired");
        for name in ["iat", "nbf"] {
            let Some(begin) = whole_ms(&claims[name]) else { continue };
            assert!(begin <= NOW.unix_ms, "{name} is to come");
            // Before 1970, there may be no earlier time that a clock can represent.
            assert!(begin <= 0 || !same(begin - 1), "good before {name}");
            assert!(same(NOW.unix_ms), "a refusal that expires was cached");
        }
        assert!(same(NOW.unix_ms) && same(end - 1), "it expires too early");
        assert!(!same(end), "it is accepted after its expiry");
        let Some(Verdict::Accept(identity)) = verdict(&fresh, &headers, NOW) else {
            panic!("the same request, another verdict");
        };
        let id = identity.user_info().id.as_str();
        match &claims[&user_id] {
            Value::String(named) => assert_eq!(id, named),
            Value::Number(named) if named.is_f64() => assert_eq!(id.parse().ok(), named.as_f64()),
            Value::Number(named) => assert_eq!(id, named.to_string()),
            other => panic!("{other} is no user id, but {id:?} was accepted"),
        }
    }
}

/// A time in milliseconds, truncated to whole seconds. `None` if it is no number.
#[expect(
    clippy::cast_possible_truncation,
    reason = "truncated to whole seconds; it saturates beyond any clock"
)]
fn whole_ms(claim: &Value) -> Option<i64> {
    claim.as_f64().map(|seconds| (seconds.trunc() * 1000.0) as i64)
}

fn verdict(chain: &Chain, headers: &HeaderMap, now: Now) -> Option<Verdict> {
    thread_local! {
        // The future waits only for its turn in a queue, but that needs a runtime.
        static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    RUNTIME
        .with(|runtime| runtime.block_on(chain.authenticate(headers, now)))
        .ok()
        .filter(|verdict| !matches!(verdict, Verdict::Pass))
}

fn accepts(chain: &Chain, headers: &HeaderMap, now: Now) -> bool {
    matches!(verdict(chain, headers, now), Some(Verdict::Accept(_)))
}

/// A token record: a parsed record, written and parsed again, must be the same.
pub fn token_record(bytes: &[u8]) {
    round_trips::<TokenRecord>(bytes);
    if let Ok(seconds) = record::parse_seconds(bytes) {
        assert_eq!(
            record::parse_seconds(seconds.to_string().as_bytes()).ok(),
            Some(seconds)
        );
    }
}

/// A user record: a parsed record, written and parsed again, must be the same.
pub fn user_record(bytes: &[u8]) {
    round_trips::<UserRecord>(bytes);
}

fn round_trips<R: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(read) = record::parse::<R>("a record", bytes) else {
        return;
    };
    let written = serde_json::to_vec(&read).expect("records can be written");
    let again = record::parse::<R>("a record", &written).expect("a written record can be parsed");
    assert_eq!(read, again);
}

/// A configuration: it is usable, or an error gives the reason. Each error has a valid position in the text, and can be
/// displayed.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A configuration may name a file. Skip special files that never end, in every spelling of their names.
    if ["/dev", "/proc", "/sys", "..", "\\u", "\\U", "\\x"]
        .iter()
        .any(|part| text.contains(part))
    {
        return;
    }
    let read = config::parse("gateway.toml", text, Path::new(""));
    let report = match &read {
        Ok(loaded) => &loaded.warnings,
        Err(error) => error.report(),
    };
    let errors = report
        .problems()
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    assert_eq!(errors, read.is_err(), "refused without an error, or accepted with one");
    for problem in report.problems() {
        assert!(
            !problem.message.is_empty() && !problem.help.is_empty(),
            "an empty message: {problem:?}"
        );
        let others = problem.related.iter().map(|(span, _)| span);
        for span in problem.span.iter().chain(others) {
            assert!(text.get(span.clone()).is_some(), "not in the file: {problem:?}");
        }
        let line = report.line_of(problem);
        assert_eq!(line.is_some(), problem.span.is_some(), "no line: {problem:?}");
        assert!(
            line.is_none_or(|line| (1..=text.matches('\n').count() + 1).contains(&line)),
            "{problem:?}"
        );
    }
    for format in [ReportFormat::Plain, ReportFormat::Coloured] {
        let shown = match &read {
            Ok(_) => report.render(format),
            Err(error) => error.render(format),
        };
        assert!(
            shown.contains("gateway.toml") || !errors,
            "a problem without a place: {shown}"
        );
    }
}

/// A path: the number of its readings is limited, and no reading of another server leads to another route.
pub fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(path) = RequestPath::parse(text) else { return };
    assert_eq!(path.as_str(), text, "the path was changed");
    let Ok(readings) = path.readings() else { return };
    assert_eq!(readings.raw, bytes);
    assert!(readings.others.len() < 64, "{} readings", readings.others.len());
    let total: usize = readings.others.iter().map(Vec::len).sum();
    assert!(total <= 128 * 1024, "{total} bytes of readings");
    let distinct: BTreeSet<&[u8]> = readings.others.iter().map(Vec::as_slice).chain([bytes]).collect();
    assert_eq!(distinct.len(), readings.others.len() + 1, "a reading twice");

    static TABLE: OnceLock<RouteTable> = OnceLock::new();
    let table = TABLE.get_or_init(table);
    for method in [Method::GET, Method::PUT] {
        let Ok(found) = table.find("host", path, &method) else {
            continue;
        };
        for (server, case, steps) in SERVERS {
            let seen = steps.iter().fold(bytes.to_vec(), |path, step| step(&path));
            assert!(
                matches(&found, &expected_route(&seen, *case, &method)),
                "{text:?} is {found:?}, and {:?} for {server}",
                String::from_utf8_lossy(&seen)
            );
        }
    }
}

type Step = fn(&[u8]) -> Vec<u8>;

/// Whether a server is case-sensitive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Sensitive,
    Insensitive,
}

/// How servers transform a path before the look-up. Each step is implemented here again, as simply as possible.
const SERVERS: &[(&str, Case, &[Step])] = &[
    ("one that compares bytes", Case::Sensitive, &[]),
    ("WSGI", Case::Sensitive, &[decoded]),
    ("nginx", Case::Sensitive, &[decoded, collapsed, without_dots]),
    ("a proxy that resolves first", Case::Sensitive, &[without_dots, decoded]),
    (
        "one that decodes twice",
        Case::Sensitive,
        &[decoded, decoded, without_dots],
    ),
    (
        "two hops",
        Case::Sensitive,
        &[decoded, without_dots, decoded, without_dots],
    ),
    (
        "servlets",
        Case::Sensitive,
        &[without_parameters, decoded, backslashed, collapsed, without_dots],
    ),
    (
        "older servlets",
        Case::Sensitive,
        &[decoded, without_parameters, collapsed, without_dots],
    ),
    (
        "Windows",
        Case::Insensitive,
        &[decoded, backslashed, collapsed, without_dots],
    ),
    ("a file system without case", Case::Insensitive, &[decoded]),
];

fn decoded(path: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(path).collect()
}

fn backslashed(path: &[u8]) -> Vec<u8> {
    path.iter()
        .map(|byte| if *byte == b'\\' { b'/' } else { *byte })
        .collect()
}

fn collapsed(path: &[u8]) -> Vec<u8> {
    let mut path = path.to_vec();
    path.dedup_by(|one, other| *one == b'/' && *other == b'/');
    path
}

fn without_parameters(path: &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or_default())
        .collect();
    segments.join(&b'/')
}

fn without_dots(path: &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').skip(1).collect();
    let mut kept: Vec<&[u8]> = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let dots = [&b"."[..], b".."].contains(segment);
        if *segment == b".." {
            kept.pop();
        }
        if !dots {
            kept.push(segment);
        } else if at + 1 == segments.len() {
            kept.push(b"");
        }
    }
    let mut path = b"/".to_vec();
    path.extend(kept.join(&b'/'));
    path
}

/// The destination on a server without authgate's readings: the longest of these routes that is a prefix of the path.
fn expected_route(path: &[u8], case: Case, method: &Method) -> Option<usize> {
    let fold = |bytes: &[u8]| match case {
        Case::Sensitive => bytes.to_vec(),
        Case::Insensitive => bytes.to_ascii_lowercase(),
    };
    let path = fold(path);
    let mut best: Option<(usize, usize)> = None;
    for (id, (pattern, _)) in ROUTES.iter().enumerate() {
        let (prefix, below) = match pattern.strip_suffix("/*") {
            Some(prefix) => (fold(prefix.as_bytes()), true),
            None => (fold(pattern.as_bytes()), false),
        };
        let rest = path.strip_prefix(prefix.as_slice());
        let hit = rest.is_some_and(|rest| rest.is_empty() || below && rest[0] == b'/');
        if hit && best.is_none_or(|(length, _)| prefix.len() >= length) {
            best = Some((prefix.len(), id));
        }
    }
    let (_, id) = best?;
    (!ROUTES[id].1 || *method == Method::GET).then_some(id)
}

fn matches(found: &Found<'_>, id: &Option<usize>) -> bool {
    match found {
        Found::Route(RouteId(found)) => Some(*found) == *id,
        Found::OtherMethods(_) | Found::NoRoute => id.is_none(),
    }
}

/// Routes without a host, and whether they accept only GET.
const ROUTES: &[(&str, bool)] = &[
    ("/api/*", false),
    ("/admin/*", false),
    ("/api/login", false),
    ("/api/Reports/*", false),
    ("/api/read/*", true),
];

fn table() -> RouteTable {
    let route_match = |(pattern, only_get): &(&str, bool)| RouteMatch {
        host: HostPattern::Any,
        path: match pattern.strip_suffix("/*") {
            Some(prefix) => PathPattern::Prefix(prefix.into()),
            None => PathPattern::Exact((*pattern).into()),
        },
        methods: if *only_get { vec![Method::GET] } else { Vec::new() },
    };
    let matches: Vec<RouteMatch> = ROUTES.iter().map(route_match).collect();
    RouteTable::new(&matches, |id| id)
}

fn good_token() -> &'static str {
    static GOOD: OnceLock<String> = OnceLock::new();
    GOOD.get_or_init(|| sign(br#"{"alg":"HS256"}"#, br#"{"user_id":"1","exp":9999999999}"#))
}

fn sign(header: &[u8], payload: &[u8]) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", encode(header), encode(payload));
    let key = SigningKey::new(Algorithm::HS256, None, &Secret::new(SECRET.to_vec())).expect("a secret signs");
    let signature = key.signature(signed.as_bytes()).expect("a secret signs");
    format!("{signed}.{}", encode(&signature))
}

/// SimpleJWT's rules, without the claims that a fuzzer would have to guess.
fn relaxed() -> Rules {
    Rules {
        token_type_claim: None,
        jti_claim: None,
        ..Rules::simplejwt()
    }
}

/// A chain with one authenticator for these rules, whose cache has `entries` entries.
fn chain(rules: Rules, entries: usize) -> Chain {
    // Share the counters: no test changes one, and creating them for each input would take most of the time.
    static COUNTERS: LazyLock<Arc<ChangeCounters>> = LazyLock::new(Arc::default);
    let settings = AuthenticatorSettings {
        name: "jwt".into(),
        header: AUTHORIZATION,
        scheme: Profile::SimpleJwt.auth_scheme(vec!["Bearer".to_owned()]),
        realm: None,
        cache: CacheSettings {
            entries,
            negative_entries: entries,
            ..defaults::CACHE
        },
        kind: KindSettings::Jwt(Arc::new(settings(rules))),
    };
    let shared = SharedAuthenticator::new(settings, &Arc::default(), &COUNTERS);
    Chain::new(vec![Authenticator::new(&shared, &WorkerResources::default()).into()])
}

fn settings(rules: Rules) -> JwtSettings {
    let key = |algorithm, secret: &[u8]| VerificationKey::from_secret(algorithm, None, &Secret::new(secret.to_vec()));
    let public = |algorithm, pem: &str| VerificationKey::from_pem(algorithm, None, pem.as_bytes());
    let keys = [
        key(Algorithm::HS256, SECRET),
        key(
            Algorithm::HS512,
            b"another secret of the fuzzer, of more than the 64 bytes that it takes for HS512",
        ),
        public(Algorithm::ES256, include_str!("../certs-example/jwt-es256.pub.pem")),
        public(Algorithm::EdDSA, include_str!("../certs-example/jwt-eddsa.pub.pem")),
    ];
    JwtSettings {
        keys: KeySet::Static(keys.into_iter().map(|key| key.expect("a good key")).collect()),
        token_bytes: 16 * 1024,
        rules,
        users: Users::Claims {
            username_claim: "username".to_owned(),
        },
        revocation: None,
    }
}
