//! Entry points for fuzzers: one function for each reader of credentials, tokens and records. Each function accepts any bytes, and panics
//! if an invariant is broken. They are not part of the library's public interface.

mod proof;

use std::fmt::Debug;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use authgate_core::credential::{Acceptance, Presented, Shape};
use authgate_core::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

pub use self::proof::proof;
use crate::cache::{CacheSettings, OnOutage};
use crate::claims::Claims;
use crate::claims::user::{IdNumbers, NamedUser};
use crate::decision::Decision;
use crate::dependencies::ChangeCounters;
use crate::fetch::FetchUrl;
use crate::fetch::discovery::Metadata;
use crate::form::CredentialForm;
use crate::identities::IdentityFactory;
use crate::introspection::{self, Answer, IntrospectionRules};
use crate::jwt::keys::{Algorithm, JwkSet, VerificationKey};
use crate::jwt::sign::SigningKey;
use crate::jwt::{self, Issuer, IssuerTable, Issuers, JwtSettings, KeySet, Namespace, Profile, Rules, Users};
use crate::record::{self, TokenRecord, UserRecord};
use crate::{
    Authenticator, AuthenticatorSettings, BindingRules, Chain, KindSettings, Now, PlainRequest, Requirement,
    SharedAuthenticator, Verdict, WorkerResources,
};

const SECRET: &[u8] = b"a secret of the fuzzer, of more than 32 bytes";
const OTHER_SECRET: &[u8] = b"a secret of another issuer, of more than 32 bytes";
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

/// The answer of an introspection endpoint. A token is accepted only if the answer says so, before it expires, and for the user that the answer
/// names.
pub fn introspection(bytes: &[u8]) {
    let members = match Answer::parse(bytes) {
        Err(_) => return,
        Ok(Answer::Inactive) => {
            let answer: Value = serde_json::from_slice(bytes).expect("it was read before");
            assert_eq!(answer["active"], false);
            return;
        }
        Ok(Answer::Active(members)) => members,
    };
    let answer: Value = serde_json::from_slice(bytes).expect("it was read before");
    assert_eq!(answer["active"], true);
    let rules = IntrospectionRules {
        issuer: vec!["i".to_owned()],
        audience: vec!["a".to_owned()],
        leeway: Duration::ZERO,
        user_id_claim: "sub".to_owned(),
        username_claim: "username".to_owned(),
        jti_claim: Some("jti".to_owned()),
        binding: Arc::new(BindingRules {
            dpop: Requirement::Accept,
            certificate_bound: Requirement::Accept,
            ..BindingRules::OFF
        }),
    };
    let Ok(claims) = Claims::check(members, rules.claims(), NOW) else {
        return;
    };
    let named = claims
        .get("sub")
        .map(|claim| NamedUser::from_claim(claim, IdNumbers::Integers));
    let identities = IdentityFactory::new("idp".into(), Arc::default());
    let accepted = introspection::accept(claims, named, &rules, &identities);
    let Ok(Decision::Accepted {
        identity,
        validity,
        binding,
    }) = accepted
    else {
        return;
    };
    let confirmation = binding.expect("bindings are checked").confirmation;
    assert_eq!(confirmation.key.is_some(), answer["cnf"]["jkt"].is_string());
    assert_eq!(
        confirmation.certificate.is_some(),
        answer["cnf"]["x5t#S256"].is_string()
    );
    assert_eq!(answer["sub"], identity.user_info().id.as_str());
    assert_eq!(answer["iss"], "i");
    assert!(answer["aud"] == "a" || answer["aud"].as_array().is_some_and(|all| all.contains(&"a".into())));
    assert!(validity.contains(NOW));
    match whole_ms(&answer["exp"]) {
        Some(end) => assert_eq!(validity.until_ms, end),
        None => assert!(answer["exp"].is_null()),
    }
    if let Some(begin) = whole_ms(&answer["nbf"]) {
        assert!(begin <= NOW.unix_ms, "nbf is to come");
    }
}

/// A JWK Set at a URL. No key of it is a secret, each has a `kid` and one of the algorithms that were asked for, and no key is lost silently.
pub fn published_keys(bytes: &[u8]) {
    let algorithms = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let Ok(set) = JwkSet::parse_published(bytes, &algorithms) else {
        return;
    };
    let document: Value = serde_json::from_slice(bytes).expect("it was read before");
    let written = document["keys"].as_array().map_or(0, Vec::len);
    for key in &set.keys {
        assert!(key.kid().is_some() && algorithms.contains(&key.algorithm()), "{key:?}");
    }
    let used = set.keys.len();
    // Each key suits one of these algorithms. Those beyond the limit have one entry.
    let entries = written.min(256) + usize::from(written > 256);
    assert_eq!(used + set.skipped().len(), entries, "a key was lost");
}

/// The metadata of an issuer. They are used only if they name the issuer exactly, and URLs that may be fetched.
pub fn discovery(bytes: &[u8]) {
    let url = |text| FetchUrl::parse(text).expect("a URL");
    let issuer = url("https://id.example");
    let Ok(metadata) = Metadata::parse(&issuer, &url("https://id.example/document"), bytes) else {
        return;
    };
    let document: Value = serde_json::from_slice(bytes).expect("it was read before");
    assert_eq!(document["issuer"], issuer.as_str());
    for (named, member) in [
        (metadata.jwks_uri, "jwks_uri"),
        (metadata.introspection_endpoint, "introspection_endpoint"),
    ] {
        match named {
            None => assert!(document[member].is_null(), "{member} was lost"),
            Some(named) => assert!(named.is_https() && document[member] == named.as_str(), "{named}"),
        }
    }
}

/// The payload of a token that is signed by one of two issuers. It is accepted only if its `iss`, as any reader finds it, is the issuer whose
/// key has signed it.
pub fn issuers(bytes: &[u8]) {
    const NAMES: [&str; 2] = ["https://a.test", "https://b.test"];
    static SETTINGS: LazyLock<JwtSettings> = LazyLock::new(|| {
        let issuer = |secret: &[u8], namespace| {
            let key = VerificationKey::from_secret(Algorithm::HS256, Some("k"), &Secret::new(secret.to_vec()));
            Issuer {
                keys: KeySet::Jwks(vec![key.expect("a good key")]),
                namespace: Namespace::new(namespace).expect("a namespace"),
                ..issuer(relaxed())
            }
        };
        let all = NAMES
            .into_iter()
            .zip([issuer(SECRET, "a:"), issuer(OTHER_SECRET, "b:")]);
        JwtSettings {
            issuers: Issuers::ByName(IssuerTable::new(
                Profile::SimpleJwt,
                all.map(|(name, issuer)| (name.into(), issuer)).collect(),
            )),
            form: CredentialForm::Any,
            revocation: None,
        }
    });
    // As sent, and as the end of claims that begin well.
    let begun = [br#"{"exp":9999999999,"user_id":"1","iss":"https://a.test""#, bytes].concat();
    for payload in [bytes, &begun] {
        for (secret, name) in [SECRET, OTHER_SECRET].into_iter().zip(NAMES) {
            let token = sign_with(secret, br#"{"alg":"HS256","kid":"k"}"#, payload);
            if jwt::verified_payload(&SETTINGS, token.as_bytes()).is_ok() {
                // serde_json keeps the last of several members with one name.
                let claims: Value = serde_json::from_slice(payload).expect("claims that were read");
                assert_eq!(claims["iss"], name, "another issuer");
            }
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
        .with(|runtime| runtime.block_on(chain.authenticate(&PlainRequest::default().with(headers), now)))
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

fn good_token() -> &'static str {
    static GOOD: OnceLock<String> = OnceLock::new();
    GOOD.get_or_init(|| sign(br#"{"alg":"HS256"}"#, br#"{"user_id":"1","exp":9999999999}"#))
}

fn sign(header: &[u8], payload: &[u8]) -> String {
    sign_with(SECRET, header, payload)
}

fn sign_with(secret: &[u8], header: &[u8], payload: &[u8]) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", encode(header), encode(payload));
    let key = SigningKey::new(Algorithm::HS256, None, &Secret::new(secret.to_vec())).expect("a secret signs");
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
            ttl: Duration::from_secs(60),
            negative_ttl: Duration::from_secs(5),
        },
        on_outage: OnOutage::Deny,
        kind: KindSettings::Jwt(Arc::new(settings(rules))),
    };
    let shared = SharedAuthenticator::new(settings, &Arc::default(), &COUNTERS);
    Chain::new(vec![Authenticator::new(&shared, &WorkerResources::default()).into()])
}

fn settings(rules: Rules) -> JwtSettings {
    JwtSettings {
        issuers: Issuers::One(issuer(rules)),
        form: CredentialForm::Any,
        revocation: None,
    }
}

fn issuer(rules: Rules) -> Issuer {
    let key = |algorithm, secret: &[u8]| VerificationKey::from_secret(algorithm, None, &Secret::new(secret.to_vec()));
    let public = |algorithm, pem: &str| VerificationKey::from_pem(algorithm, None, pem.as_bytes());
    let keys = [
        key(Algorithm::HS256, SECRET),
        key(
            Algorithm::HS512,
            b"another secret of the fuzzer, of more than the 64 bytes that it takes for HS512",
        ),
        public(Algorithm::ES256, include_str!("fuzzing/es256.pub.pem")),
        public(Algorithm::EdDSA, include_str!("fuzzing/eddsa.pub.pem")),
    ];
    Issuer {
        keys: KeySet::Static(keys.into_iter().map(|key| key.expect("a good key")).collect()),
        token_bytes: 16 * 1024,
        rules,
        users: Users::Claims {
            username_claim: "username".to_owned(),
        },
        binding: Arc::new(BindingRules::OFF),
        namespace: Namespace::default(),
    }
}
