//! [`H2Server`]: an application server that speaks HTTP/2, in the clear or over TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// A whole answer.
pub struct Answer {
    pub head: Response<()>,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn ok(body: String) -> Self {
        let head = Response::builder().header("x-upstream", "1").body(()).expect("a head");
        Self {
            head,
            body: body.into(),
            trailers: None,
        }
    }
}

/// It lives as long as this value.
pub struct H2Server {
    address: SocketAddr,
    tls: bool,
    accepted: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl H2Server {
    pub fn start(
        tls: Option<rustls::ServerConfig>,
        handler: impl Fn(Request<()>, Bytes) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a free port");
        let address = listener.local_addr().expect("bound");
        let accepted = Arc::new(AtomicUsize::new(0));
        let (counted, handler, has_tls) = (Arc::clone(&accepted), Arc::new(handler), tls.is_some());
        let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (handler, acceptor) = (Arc::clone(&handler), acceptor.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let handler = Arc::clone(&handler);
                        async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                            let answer = handler(Request::from_parts(head, ()), body);
                            let body = Full::new(answer.body)
                                .with_trailers(async move { answer.trailers.map(Ok::<_, Infallible>) });
                            Ok::<_, Infallible>(answer.head.map(|()| body))
                        }
                    });
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = match acceptor {
                        None => builder.serve_connection(TokioIo::new(tcp), service).await,
                        Some(acceptor) => match acceptor.accept(tcp).await {
                            Ok(tls) => builder.serve_connection(TokioIo::new(tls), service).await,
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        });
        Self {
            address,
            tls: has_tls,
            accepted,
            _runtime: runtime,
        }
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "h2c" };
        format!("{scheme}://{}", self.address)
    }

    /// How many connections were made.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}
