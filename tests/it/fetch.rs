//! The HTTP client for identity providers, against providers that misbehave.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use authgate_auth::fetch::{Document, FetchError, FetchTls, FetchUrl, HttpClient, MAX_BODY, Proxies};
use bytes::Bytes;
use http::HeaderValue;
use serde_json::json;
use tokio::runtime::{Handle, Runtime};
use tokio::time::Instant;

use crate::harness::connect_proxy::ConnectProxy;
use crate::harness::pki::Pki;
use crate::harness::scripted_provider::{Hold, Script, ScriptedProvider};
use crate::harness::upstream::closed_port;
use crate::harness::wait_until;

/// Longer than any test.
const LONG: Duration = Duration::from_secs(60);

/// A client, and the runtime of its requests.
struct Caller {
    client: Arc<HttpClient>,
    runtime: Runtime,
}

impl Caller {
    fn new(pki: &Pki, idle_connections: usize) -> Self {
        Self::behind(Proxies::new("", ""), pki, idle_connections)
    }

    fn behind(proxies: Proxies, pki: &Pki, idle_connections: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let tls = FetchTls {
            config: Arc::new(pki.client(&["h2"], rustls::ALL_VERSIONS)),
            made_from: [0; 32],
        };
        let client = HttpClient::new(&tls, idle_connections, proxies);
        runtime.block_on(async { client.start() });
        Self { client, runtime }
    }

    fn get(&self, url: &str, timeout: Duration) -> Result<Document, FetchError> {
        let url = FetchUrl::parse(url).unwrap();
        self.on_a_worker(self.client.get(&url, Instant::now() + timeout))
    }

    fn post(&self, url: &str, form: &'static str) -> Result<Document, FetchError> {
        let url = FetchUrl::parse(url).unwrap();
        let authorization = Some(HeaderValue::from_static("Basic canary"));
        let form = Bytes::from_static(form.as_bytes());
        self.on_a_worker(self.client.post_form(&url, authorization, form, Instant::now() + LONG))
    }

    /// Waits on another runtime than that of the requests.
    fn on_a_worker<T>(&self, future: impl Future<Output = T>) -> T {
        let worker = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        assert_ne!(worker.handle().id(), self.runtime.handle().id());
        worker.block_on(future)
    }
}

fn label(result: &Result<Document, FetchError>) -> &'static str {
    result
        .as_ref()
        .map_or_else(|error| error.label_value().text, |_| "document")
}

#[test]
fn a_document_comes_with_what_is_left_of_its_max_age() {
    let (pki, provider) = (Pki::new(), ScriptedProvider::start());
    let caller = Caller::new(&pki, 0);
    let script = Script::json(&json!({ "keys": [] })).field("Content-Type", "text/html");
    provider.serves("/keys", script.field("Cache-Control", "max-age=60").field("Age", "10"));
    let document = caller.get(&provider.url("/keys?p=policy"), LONG).unwrap();
    assert_eq!(document.body, r#"{"keys":[]}"#);
    assert_eq!(document.max_age, Some(Duration::from_secs(50)));
    let received = &provider.received("/keys")[0];
    assert_eq!(received.head.first, "GET /keys?p=policy HTTP/1.1");
    assert_eq!(received.header("accept-encoding"), Some("identity"));
    assert!(received.header("user-agent").unwrap().starts_with("authgate/"));
    // A connection for each request, unless connections are kept.
    caller.get(&provider.url("/keys"), LONG).unwrap();
    assert_eq!(provider.accepted(), 2);
}

#[test]
fn responses_that_are_no_document_are_errors_that_say_why() {
    let (pki, provider) = (Pki::new(), ScriptedProvider::start());
    let caller = Caller::new(&pki, 0);
    let with_location = Script::new(302, "").field("Location", "https://elsewhere.example/\u{9b}1m");
    for (script, expected, words) in [
        (
            with_location,
            "redirect",
            "302 Found) to https://elsewhere.example/\\u009b1m",
        ),
        (Script::new(301, ""), "redirect", "write the final URL"),
        (Script::new(304, ""), "redirect", "304"),
        (Script::new(404, "{}"), "status", "404"),
        (Script::new(401, "{}"), "status", "401"),
        (Script::new(503, "{}"), "status", "503"),
        (Script::new(201, "{}"), "status", "201"),
        (Script::new(200, vec![b' '; MAX_BODY + 1]), "too_large", "1048576"),
        (
            Script::new(200, "{}").field("Content-Encoding", "gzip"),
            "compressed",
            "compressed",
        ),
        (Script::new(200, "{}").cut_after(1), "cut", "lost"),
        (Script::raw(""), "cut", "lost"),
        (Script::raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"), "protocol", "not valid HTTP"),
    ] {
        provider.serves("/keys", script);
        let result = caller.get(&provider.url("/keys"), LONG);
        assert_eq!(label(&result), expected, "{result:?}");
        let message = result.unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    // Without a length, the body is counted as it comes.
    let endless = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &vec![b' '; 2 * MAX_BODY]].concat();
    provider.serves("/keys", Script::raw(endless));
    assert_eq!(label(&caller.get(&provider.url("/keys"), LONG)), "too_large");
    provider.serves("/keys", Script::new(200, vec![b' '; MAX_BODY]));
    assert_eq!(caller.get(&provider.url("/keys"), LONG).unwrap().body.len(), MAX_BODY);
}

#[test]
fn a_provider_that_is_slow_or_down_is_an_error_in_time() {
    let (pki, provider) = (Pki::new(), ScriptedProvider::start());
    let (caller, hold) = (Caller::new(&pki, 0), Hold::default());
    provider.serves("/keys", Script::new(200, "{}").hold(&hold));
    let result = caller.get(&provider.url("/keys"), Duration::from_millis(50));
    assert_eq!(label(&result), "timeout", "{result:?}");
    hold.release();
    let result = caller.get(&format!("http://{}/keys", closed_port()), LONG);
    assert_eq!(label(&result), "connect", "{result:?}");
    // The deadline covers TLS too: this server accepts, and is silent.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/keys", silent.local_addr().unwrap());
    assert_eq!(label(&caller.get(&url, Duration::from_millis(50))), "timeout");
    let Caller { client, runtime } = caller;
    runtime.shutdown_background();
    let url = FetchUrl::parse(&provider.url("/keys")).unwrap();
    let fetched = Runtime::new()
        .unwrap()
        .block_on(client.get(&url, Instant::now() + LONG));
    assert_eq!(label(&fetched), "shut_down");
}

#[test]
fn a_certificate_of_another_authority_is_an_error() {
    let (own, other) = (Pki::new(), Pki::new());
    let provider = ScriptedProvider::https(&own);
    provider.serves("/keys", Script::new(200, "{}").delay(Duration::from_millis(1)));
    assert_eq!(
        label(&Caller::new(&own, 0).get(&provider.url("/keys"), LONG)),
        "document"
    );
    let result = Caller::new(&other, 0).get(&provider.url("/keys"), LONG);
    assert_eq!(label(&result), "tls", "{result:?}");
    let message = result.unwrap_err().to_string();
    assert!(message.contains("in `ca`"), "{message}");
    // Cleartext where TLS is spoken, and the other way round.
    let address = SocketAddr::from(([127, 0, 0, 1], provider.port()));
    let result = Caller::new(&own, 0).get(&format!("http://{address}/keys"), LONG);
    assert!(["protocol", "cut"].contains(&label(&result)), "{result:?}");
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/keys", plain.local_addr().unwrap());
    let answers = std::thread::spawn(move || plain.accept().unwrap().0.write_all(b"HTTP/1.1 400 No\r\n\r\n"));
    let result = Caller::new(&own, 0).get(&url, LONG);
    answers.join().unwrap().unwrap();
    assert_eq!(label(&result), "tls", "{result:?}");
}

#[test]
fn a_form_is_posted_over_a_connection_that_is_kept() {
    let pki = Pki::new();
    let provider = ScriptedProvider::https(&pki);
    let caller = Caller::new(&pki, 4);
    provider.answers("/introspect", |request| Script::new(200, request.body.data.clone()));
    for _ in 0..3 {
        let document = caller.post(&provider.url("/introspect"), "token=canary&a=b").unwrap();
        assert_eq!(document.body, "token=canary&a=b");
    }
    let received = &provider.received("/introspect")[2];
    assert_eq!(received.head.first, "POST /introspect HTTP/1.1");
    assert_eq!(received.text(), "token=canary&a=b");
    assert_eq!(received.header("authorization"), Some("Basic canary"));
    assert_eq!(
        received.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(provider.accepted(), 1);
    // The idle connection is closed: the request goes over another one.
    provider.goes_down();
    provider.comes_back();
    assert_eq!(
        label(&caller.post(&provider.url("/introspect"), "token=canary")),
        "document"
    );
}

#[test]
fn dropping_the_future_of_a_request_closes_its_connection() {
    let (pki, provider) = (Pki::new(), ScriptedProvider::start());
    let caller = Caller::new(&pki, 0);
    let hold = Hold::default();
    provider.serves("/keys", Script::new(200, vec![0; MAX_BODY]).hold(&hold));
    let url = FetchUrl::parse(&provider.url("/keys")).unwrap();
    caller.on_a_worker(async {
        let fetch = caller.client.get(&url, Instant::now() + LONG);
        let _ = tokio::time::timeout(Duration::from_millis(50), fetch).await;
    });
    provider.wait_for("/keys", 1);
    wait_until("the request is cancelled", Duration::from_secs(10), || {
        Handle::metrics(caller.runtime.handle()).num_alive_tasks() == 0
    });
    hold.release();
}

#[test]
fn a_proxy_gets_a_tunnel_for_each_host_that_is_neither_excepted_nor_loopback() {
    let pki = Pki::new();
    let provider = ScriptedProvider::with_names(&pki, &["id.example", "localhost"]);
    provider.serves("/keys", Script::new(200, "{}"));
    let proxy = ConnectProxy::to(SocketAddr::from(([127, 0, 0, 1], provider.port())));
    let behind = |no_proxy| Caller::behind(Proxies::new(&proxy.url("me:canary"), no_proxy), &pki, 0);
    let caller = behind("");
    assert_eq!(label(&caller.get("https://id.example/keys", LONG)), "document");
    let received = proxy.received();
    assert_eq!(received[0].first, "CONNECT id.example:443 HTTP/1.1");
    assert_eq!(received[0].header("proxy-authorization"), Some("Basic bWU6Y2FuYXJ5"));
    assert_eq!(label(&caller.get(&provider.url("/keys"), LONG)), "document", "loopback");
    assert_eq!(proxy.received().len(), 1);
    let without = behind("id.invalid").get("https://id.invalid/keys", LONG);
    assert_eq!(label(&without), "connect", "{without:?}");
    assert_eq!(proxy.received().len(), 1);
    for (url, words) in [
        (
            format!("http://me:canary@{}", closed_port()),
            "through the proxy http://127.0.0.1:",
        ),
        (proxy.url("").replace("http:", "socks5:"), "only http:// and https://"),
    ] {
        let result = Caller::behind(Proxies::new(&url, ""), &pki, 0).get("https://id.example/keys", LONG);
        assert_eq!(label(&result), "proxy", "{result:?}");
        let message = result.unwrap_err().to_string();
        assert!(message.contains(words) && !message.contains("canary"), "{message}");
    }
}
