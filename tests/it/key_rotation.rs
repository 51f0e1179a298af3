//! Keys of a real provider, found by `discovery`: they change, and the provider goes and comes back, while clients send requests.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use authgate_auth::jwt::keys::Algorithm;
use jsonwebtoken::decode_header;
use serde_json::json;
use tempfile::TempDir;

use crate::harness::load::Load;
use crate::harness::mint::{Signer, now};
use crate::harness::oidc_provider::{AUDIENCE, OidcProvider};
use crate::harness::pki::Pki;
use crate::harness::program::authgate;
use crate::harness::{Gate, RecordingUpstream, config, get, wait_until};
use crate::identity_provider::{ALGORITHMS, JWKS, TIMEOUT, accepts, jwt, with_routes};

const METADATA: &str = "/.well-known/openid-configuration";
const COOLDOWN: Duration = Duration::from_secs(1);
/// Fetches as often as it may.
const OFTEN: &str = "jwks = { refresh = \"2s\", cooldown = \"1s\", timeout = \"20s\" }";
const CLIENTS: usize = 4;

/// `[authenticators.jwt]`, whose keys the gateway finds by the metadata of the provider.
fn discovered(provider: &OidcProvider, lines: &str) -> String {
    jwt(provider, &format!("discovery = {:?}\n{lines}", provider.issuer))
}

type Source = Arc<dyn Fn() -> String + Send + Sync>;

/// Clients that take another token after every few requests. A request that is not 200 fails the test.
struct Clients {
    load: Load,
    /// The number of the key that has signed the newest token of each client.
    keys: Arc<[AtomicUsize; CLIENTS]>,
    sent: Arc<AtomicUsize>,
}

impl Clients {
    fn start(gate: &Gate, source: &Source) -> Self {
        let mut clients = Self {
            load: Load::default(),
            keys: Arc::default(),
            sent: Arc::default(),
        };
        for client in 0..CLIENTS {
            let mut conn = gate.connect();
            let (keys, sent) = (Arc::clone(&clients.keys), Arc::clone(&clients.sent));
            let source = Arc::clone(source);
            clients.load.spawn(move |_| {
                let token = source();
                for _ in 0..5 {
                    let reply = conn.call(&get("/all/x").bearer(&token));
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                keys[client].store(key_number(&token), Ordering::Relaxed);
                5
            });
        }
        clients
    }

    /// Waits until each client has used a token of this key, for a few requests.
    fn wait_for_key(&self, number: usize) {
        wait_until(&format!("every client has tokens of key {number}"), TIMEOUT, || {
            self.keys.iter().all(|key| key.load(Ordering::Relaxed) >= number)
        });
    }

    fn wait_for_requests(&self, more: usize) {
        let before = self.sent.load(Ordering::Relaxed);
        wait_until("the clients send requests", TIMEOUT, || {
            self.sent.load(Ordering::Relaxed) >= before + more
        });
    }
}

fn kid(number: usize) -> String {
    format!("ES256-{number}")
}

fn key_number(token: &str) -> usize {
    let kid = decode_header(token).unwrap().kid.unwrap();
    kid.strip_prefix("ES256-").unwrap().parse().unwrap()
}

fn tokens_of(provider: &Arc<OidcProvider>) -> Source {
    let provider = Arc::clone(provider);
    Arc::new(move || provider.token("ES256"))
}

/// No two fetches begin within the cooldown.
fn fetches_are_rare(provider: &OidcProvider, since: Instant) {
    for path in [METADATA, JWKS] {
        let fetches = provider.count(path);
        let most = since.elapsed().as_secs() / COOLDOWN.as_secs() + 1;
        assert!(fetches <= most, "{fetches} fetches of {path}, and {most} are allowed");
    }
}

/// A token that no key of the provider has signed.
fn forged(provider: &OidcProvider, kid: &str) -> String {
    let header = json!({ "typ": "at+jwt", "alg": "ES256", "kid": kid });
    let claims = json!({
        "iss": provider.issuer, "aud": AUDIENCE, "sub": "shop", "client_id": "shop", "jti": "canary", "scope": "read",
        "iat": now(), "exp": now() + 300,
    });
    Signer::new(Algorithm::ES256).seal(&header.to_string(), claims.to_string().as_bytes())
}

#[test]
fn discovery_finds_the_keys_of_a_certified_provider() {
    let pki = Pki::new();
    let Some(provider) = OidcProvider::https(&pki) else {
        return;
    };
    let upstream = RecordingUpstream::start();
    let ca = "jwks = { ca = \"ca.pem\" }";
    let config = config()
        .tables(&discovered(&provider, ca))
        .file("ca.pem", pki.root_pem());
    let gate = Gate::start(&with_routes(config, &upstream, &["jwt"]));
    for algorithm in ALGORITHMS {
        accepts(&gate, &upstream, &provider.token(algorithm), "jwt");
    }
    // Without a fetch: the last one was less than `cooldown` ago.
    assert_eq!(
        gate.call(&get("/all/x").bearer(&forged(&provider, "ES256-1"))).status,
        401
    );
    assert_eq!(
        gate.call(&get("/all/x").bearer(&forged(&provider, "ES256-9"))).status,
        401
    );
    assert_eq!((provider.count(METADATA), provider.count(JWKS)), (1, 1));
}

#[test]
fn inspect_says_why_there_are_no_keys() {
    let Some(provider) = OidcProvider::start() else { return };
    let upstream = RecordingUpstream::start();
    let folder = TempDir::new().unwrap();
    let config = config().tables(&discovered(&provider, ""));
    with_routes(config, &upstream, &["jwt"]).write(folder.path());
    let token = provider.token("ES256");
    let inspect = || authgate(folder.path(), &["jwt", "inspect", &token]);
    assert!(inspect().good().contains("authenticator jwt: accepted"));
    // An issuer with a slash that the provider does not have.
    let file = folder.path().join("gateway.toml");
    let written = fs::read_to_string(&file).unwrap();
    let slash = format!("{:?}", format!("{}/", provider.issuer));
    fs::write(&file, written.replace(&format!("{:?}", provider.issuer), &slash)).unwrap();
    let refused = inspect();
    assert!(
        refused.out.contains("the same as in `discovery`, byte for byte"),
        "{refused:?}"
    );
    provider.goes_down();
    let refused = inspect();
    assert!(refused.out.contains("there are no keys of"), "{refused:?}");
    assert!(
        refused.out.contains("/.well-known/openid-configuration: "),
        "{refused:?}"
    );
}

#[test]
fn keys_rotate_under_load_without_a_failed_request() {
    let Some(provider) = OidcProvider::start().map(Arc::new) else {
        return;
    };
    let upstream = RecordingUpstream::start();
    let since = Instant::now();
    let gate = Gate::start(&with_routes(
        config().tables(&discovered(&provider, OFTEN)),
        &upstream,
        &["jwt"],
    ));
    let clients = Clients::start(&gate, &tokens_of(&provider));
    for number in 2..=4 {
        let old = provider.token("ES256");
        provider.publish(&kid(number), "ES256");
        // This is what the documentation demands of a provider: a key is published for `cooldown` before it signs.
        thread::sleep(COOLDOWN);
        provider.sign_with(&kid(number));
        clients.wait_for_key(number);
        // It is in the cache now.
        accepts(&gate, &upstream, &old, "jwt");
        provider.remove(&kid(number - 1));
        wait_until("tokens of the removed key are refused", TIMEOUT, || {
            gate.call(&get("/all/x").bearer(&old)).status == 401
        });
    }
    assert!(clients.load.stop() > 0);
    fetches_are_rare(&provider, since);
}

#[test]
fn a_provider_that_is_stopped_and_replaced_under_load_fails_no_request() {
    let Some(provider) = OidcProvider::start().map(Arc::new) else {
        return;
    };
    let upstream = RecordingUpstream::start();
    let since = Instant::now();
    // Without a cache, each request needs a key.
    let lines = format!("{OFTEN}\ncache = {{ entries = 0, negative_entries = 0 }}");
    let config = config().tables(&discovered(&provider, &lines));
    let gate = Gate::start(&with_routes(config, &upstream, &["jwt"]));
    let status = |token: &str| gate.call(&get("/all/x").bearer(token)).status;
    let tokens = Arc::new(Mutex::new(vec![provider.token("ES256"), provider.token("ES256")]));
    let source: Source = {
        let tokens = Arc::clone(&tokens);
        Arc::new(move || fastrand::choice(tokens.lock().unwrap().iter()).unwrap().clone())
    };
    let clients = Clients::start(&gate, &source);
    clients.wait_for_key(1);
    provider.goes_down();
    wait_until("a fetch has failed", TIMEOUT, || {
        gate.log().contains("the keys could not be fetched")
    });
    clients.wait_for_requests(200);
    // Its key may exist.
    let unknown = forged(&provider, &kid(9));
    assert_eq!(status(&unknown), 503);
    // Another provider at the same address, which has another key too.
    provider.publish(&kid(2), "ES256");
    provider.sign_with(&kid(2));
    let fetches = provider.count(JWKS);
    provider.comes_back();
    wait_until("the keys are fetched again", TIMEOUT, || provider.count(JWKS) > fetches);
    *tokens.lock().unwrap() = vec![provider.token("ES256")];
    clients.wait_for_key(2);
    clients.wait_for_requests(200);
    wait_until("a token of an unknown key is refused", TIMEOUT, || {
        status(&unknown) == 401
    });
    assert!(clients.load.stop() > 0);
    fetches_are_rare(&provider, since);
}

#[test]
fn a_gateway_that_starts_without_its_provider_is_503_until_the_provider_is_there() {
    let Some(provider) = OidcProvider::start() else { return };
    let upstream = RecordingUpstream::start();
    let token = provider.token("ES256");
    provider.goes_down();
    let config = config().tables(&discovered(&provider, OFTEN));
    let gate = Gate::spawn(&with_routes(config, &upstream, &["jwt"]));
    let reply = gate.call(&get("/all/x").bearer(&token));
    assert_eq!((reply.status, reply.header("retry-after").is_some()), (503, true));
    assert_eq!(gate.probe("/readyz").status, 503);
    provider.comes_back();
    wait_until("the gateway is ready", TIMEOUT, || gate.probe("/readyz").status == 200);
    accepts(&gate, &upstream, &token, "jwt");
}
