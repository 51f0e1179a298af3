//! [`FakeDirectory`]: an ACME directory that misbehaves. It verifies no signature and validates no domain.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::pki::Pki;

/// What it does with an order for a domain.
pub enum Orders {
    /// It issues a certificate that began in 1970 and expires at this time, in seconds since 1970.
    IssueUntil(u64),
    /// It processes the order without end, and asks to be asked again in 0 s.
    NeverIssue,
}

pub struct FakeDirectory {
    address: SocketAddr,
    paths: Arc<Mutex<Vec<String>>>,
    _runtime: Runtime,
}

impl FakeDirectory {
    /// Its certificate and those that it issues for `domain` are signed by `pki`.
    pub fn start(pki: &Arc<Pki>, domain: &'static str, orders: Orders) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut tls = pki.server(&["localhost"], false);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let paths = Arc::new(Mutex::new(Vec::new()));
        let authority = Arc::new(Authority {
            base: format!("https://localhost:{}", address.port()),
            pki: Arc::clone(pki),
            domain,
            orders,
            chain: Mutex::new(String::new()),
        });
        let seen = Arc::clone(&paths);
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, authority, seen) = (acceptor.clone(), Arc::clone(&authority), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (authority, seen) = (Arc::clone(&authority), Arc::clone(&seen));
                        async move {
                            let path = request.uri().path().to_owned();
                            seen.lock().expect("no panic").push(path.clone());
                            let body = request.into_body().collect().await.map(|body| body.to_bytes());
                            Ok::<_, Infallible>(authority.answer(&path, &body.unwrap_or_default()))
                        }
                    });
                    let http1 = hyper::server::conn::http1::Builder::new();
                    let _ = http1.serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        Self {
            address,
            paths,
            _runtime: runtime,
        }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}/directory", self.address.port())
    }

    /// How many requests for this path it has received.
    pub fn count(&self, path: &str) -> usize {
        let paths = self.paths.lock().expect("no panic");
        paths.iter().filter(|seen| *seen == path).count()
    }
}

struct Authority {
    base: String,
    pki: Arc<Pki>,
    domain: &'static str,
    orders: Orders,
    chain: Mutex<String>,
}

impl Authority {
    fn answer(&self, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let url = |path: &str| format!("{}{path}", self.base);
        let location = match path {
            "/new-account" => url("/account"),
            "/new-order" => url("/order"),
            _ => url("/"),
        };
        let body = match path {
            "/directory" => json!({
                "newNonce": url("/new-nonce"), "newAccount": url("/new-account"), "newOrder": url("/new-order"),
            })
            .to_string(),
            "/new-account" => json!({ "status": "valid" }).to_string(),
            "/new-order" => self.order("ready"),
            "/authorization" => json!({
                "identifier": { "type": "dns", "value": self.domain }, "status": "valid", "challenges": [],
            })
            .to_string(),
            "/finalize" => match self.orders {
                Orders::NeverIssue => self.order("processing"),
                Orders::IssueUntil(until) => {
                    *self.chain.lock().expect("no panic") = self.issue(body, until);
                    self.order("valid")
                }
            },
            "/order" => match self.orders {
                Orders::NeverIssue => self.order("processing"),
                Orders::IssueUntil(_) => self.order("valid"),
            },
            "/certificate" => self.chain.lock().expect("no panic").clone(),
            _ => String::new(),
        };
        Response::builder()
            .header("replay-nonce", "nonce")
            .header("retry-after", "0")
            .header("location", location)
            .body(Full::new(body.into()))
            .expect("a response")
    }

    fn order(&self, status: &str) -> String {
        let url = |path: &str| format!("{}{path}", self.base);
        json!({
            "status": status, "authorizations": [url("/authorization")], "finalize": url("/finalize"),
            "certificate": url("/certificate"),
        })
        .to_string()
    }

    /// Issues a certificate for the key of a signing request in a JWS.
    fn issue(&self, jws: &[u8], until: u64) -> String {
        let member = |json: &[u8], name: &str| {
            let json: Value = serde_json::from_slice(json).expect("JSON");
            let member = json[name].as_str().expect("a string");
            URL_SAFE_NO_PAD.decode(member).expect("base64url")
        };
        let request = member(&member(jws, "payload"), "csr");
        self.pki.certificate_for(&request, &[self.domain], until)
    }
}
