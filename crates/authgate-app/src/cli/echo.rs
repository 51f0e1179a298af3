//! `authgate echo`: an upstream that answers with the request it received. For demos and tests.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};

use authgate_core::printable;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::Failure;

/// The maximum number of body bytes that are read.
const MAX_BODY: usize = 1024 * 1024;

/// Run only the demo's upstream.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The address to listen on; port 0 means any free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let listener =
        bind(args.listen).map_err(|error| Failure::Failed(format!("cannot listen on {}: {error}", args.listen)))?;
    let address = listener.local_addr().unwrap_or(args.listen);
    let _ = writeln!(io::stdout(), "listening on http://{address}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    runtime
        .block_on(async {
            tokio::select! {
                served = serve(listener) => served,
                _ = tokio::signal::ctrl_c() => Ok(()),
            }
        })
        .map_err(|error| Failure::Failed(error.to_string()))
}

/// Binds a listener for [`serve`].
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers requests until the future is dropped.
pub(super) async fn serve(listener: TcpListener) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (tcp, _) = listener.accept().await?;
        tokio::spawn(async move {
            let answer = service_fn(|request| async { Ok::<_, Infallible>(echo(request).await) });
            // A connection error concerns only its client: ignore it.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(tcp), answer).await;
        });
    }
}

async fn echo(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(_) => "(body too large, or incomplete)".to_owned(),
    };
    // Pairs, because an object would hide repeated headers.
    let headers: Vec<Value> = head
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let report =
        json!({ "method": head.method.as_str(), "target": head.uri.to_string(), "headers": headers, "body": body });
    let mut response = Response::new(Full::new(printable_lines(&format!("{report:#}\n")).into()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Escapes control characters: the response is shown on a terminal.
fn printable_lines(text: &str) -> String {
    printable::escape(text, |c| c == '\n').into_owned()
}
