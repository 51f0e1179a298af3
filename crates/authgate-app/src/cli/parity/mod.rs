//! `authgate parity`: sends recorded requests to the application and to the gateway, and prints how the responses differ.

mod compare;
mod requests;

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use authgate_core::secret::Secret;
use authgate_dataplane::file;
use authgate_dataplane::recording::line::PlainRequest;
use authgate_dataplane::recording::seal::{Seal, SealKey};
use authgate_http::framing::hop_by_hop;
use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, EXPECT, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri};
use rustls::ClientConfig;
use tokio::time::timeout;

use self::requests::Requests;
use super::http_client::{self, Address};
use super::{Failure, output};

/// The limit for one response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest body that is compared.
const MAX_BODY: usize = 16 << 20;
/// Requests that are under way at the same time, if they change nothing.
const CONCURRENCY: usize = 8;

/// Send recorded requests to the application and to the gateway, and print every difference in status, challenge and body
///
/// RECORDING is a file that the gateway has written (`[log] record`), or a HAR file that a browser has saved; `-` is standard input. A body is
/// compared byte for byte, or by its values if both are JSON. Fields of the connection and `Accept-Encoding` are not sent.
///
/// Exit code 0: all responses are the same. Exit code 1: some differ. Exit code 2: the recording cannot be read.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The recorded requests
    #[arg(value_name = "RECORDING")]
    recording: PathBuf,
    /// The application, as `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`
    #[arg(long, value_name = "URL")]
    application: String,
    /// The gateway, likewise
    #[arg(long, value_name = "URL")]
    gateway: String,
    /// The key of the recording: the file of `seal` in `[log] record`
    #[arg(long, value_name = "FILE")]
    seal: Option<PathBuf>,
    /// Also send methods other than GET, HEAD and OPTIONS. Each request then takes effect twice
    #[arg(long = "unsafe")]
    all_methods: bool,
    /// The authorities of the certificates of both, instead of those of the system
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  authgate parity requests.jsonl --seal record.key --application http://127.0.0.1:8000 --gateway http://127.0.0.1:8080
  authgate parity browser.har --application unix:/run/app.sock --gateway https://localhost:8443 --ca ca.pem";

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let application = Address::parse("--application", &args.application)?;
    let gateway = Address::parse("--gateway", &args.gateway)?;
    let seal = args.seal.as_deref().map(read_seal).transpose()?;
    let tls = match (&application, &gateway) {
        (Address::Https(_), _) | (_, Address::Https(_)) => {
            let usage = |error: io::Error| Failure::Usage(format!("--ca: {error}"));
            Some(http_client::tls(args.ca.as_deref()).map_err(usage)?)
        }
        _ => None,
    };
    let requests = Requests::read(&args.recording, seal.as_ref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let pair = Pair {
        application,
        gateway,
        tls,
    };
    runtime.block_on(compare_all(&pair, requests, args.all_methods))
}

fn read_seal(path: &std::path::Path) -> Result<Seal, Failure> {
    let usage = |problem: String| Failure::Usage(format!("--seal {}: {problem}", path.display()));
    let bytes = file::read(path).map_err(|error| usage(error.to_string()))?;
    let key = SealKey::new(Secret::new(bytes)).map_err(|error| usage(error.to_string()))?;
    Ok(Seal::new(&key))
}

/// The two servers.
struct Pair {
    application: Address,
    gateway: Address,
    tls: Option<Arc<ClientConfig>>,
}

#[derive(Default)]
struct Counts {
    same: u64,
    different: u64,
    other_methods: u64,
    without_body: u64,
}

async fn compare_all(pair: &Pair, requests: Requests<'_>, all_methods: bool) -> Result<(), Failure> {
    let mut counts = Counts::default();
    // Requests that change something keep their order.
    let concurrency = if all_methods { 1 } else { CONCURRENCY };
    let compared = stream::iter(requests).map(|(line, request)| async move {
        let request = request?;
        Ok::<_, Failure>(match skipped(&request, all_methods) {
            Some(skipped) => skipped,
            None => pair.compare(line, request).await,
        })
    });
    let mut compared = compared.buffered(concurrency);
    while let Some(result) = compared.next().await {
        match result? {
            Compared::Same => counts.same += 1,
            Compared::OtherMethod => counts.other_methods += 1,
            Compared::WithoutBody => counts.without_body += 1,
            Compared::Different(text) => {
                counts.different += 1;
                output::line(format_args!("{text}"))?;
            }
        }
    }
    report(&counts)
}

fn report(counts: &Counts) -> Result<(), Failure> {
    let Counts {
        same,
        different,
        other_methods,
        without_body,
    } = counts;
    let all = same + different;
    if *other_methods > 0 {
        output::note(format_args!(
            "{other_methods} requests with other methods were not sent; --unsafe sends them"
        ));
    }
    if *without_body > 0 {
        output::note(format_args!(
            "{without_body} requests were not sent: their bodies are not recorded"
        ));
    }
    if *different > 0 {
        return Err(Failure::Failed(format!("{different} of {all} responses differ")));
    }
    if all + other_methods + without_body == 0 {
        return Err(Failure::Usage("the recording has no request".to_owned()));
    }
    output::line(format_args!("{all} responses are the same."))
}

enum Compared {
    Same,
    Different(String),
    OtherMethod,
    WithoutBody,
}

fn skipped(request: &PlainRequest, all_methods: bool) -> Option<Compared> {
    let changes_nothing = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&request.method);
    if request.method == Method::CONNECT || (!changes_nothing && !all_methods) {
        Some(Compared::OtherMethod)
    } else if request.body.is_none() {
        Some(Compared::WithoutBody)
    } else {
        None
    }
}

impl Pair {
    /// Sends one request to both. `line`: its position in the recording.
    async fn compare(&self, line: usize, request: PlainRequest) -> Compared {
        let method = request.method.clone();
        let request = match to_send(request) {
            Ok(request) => request,
            Err(problem) => return Compared::Different(format!("request {line}: it cannot be sent: {problem}")),
        };
        let path = request.uri().path().to_owned();
        let (application, gateway) = future::join(
            self.send(&self.application, request.clone()),
            self.send(&self.gateway, request),
        )
        .await;
        let differences = compare::differences(&application, &gateway);
        if differences.is_empty() {
            return Compared::Same;
        }
        let mut text = format!("request {line}: {method} {path}");
        for difference in differences {
            let _ = write!(text, "\n  {difference}");
        }
        Compared::Different(text)
    }

    async fn send(&self, address: &Address, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let sent = http_client::send(address, request, self.tls.clone(), MAX_BODY);
        match timeout(RESPONSE_TIMEOUT, sent).await {
            Ok(sent) => sent.map_err(|error| error.to_string()),
            Err(_) => Err(format!("none within {} s", RESPONSE_TIMEOUT.as_secs())),
        }
    }
}

/// The request for both servers: with the recorded `Host`, and without fields that belong to the recorded connection.
fn to_send(request: PlainRequest) -> Result<Request<Bytes>, String> {
    let uri: Uri = request
        .url
        .parse()
        .map_err(|_| format!("{:?} is not a URL", request.url))?;
    let mut headers = request.headers;
    hop_by_hop::strip_connection_options(&mut headers);
    hop_by_hop::strip(&mut headers, hop_by_hop::is_request_hop_by_hop);
    for name in [CONTENT_LENGTH, EXPECT, ACCEPT_ENCODING] {
        headers.remove(name);
    }
    if let (None, Some(authority)) = (headers.get(HOST), uri.authority()) {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
        headers.insert(HOST, host);
    }
    let target = uri.path_and_query().cloned();
    let mut sent = Request::new(request.body.unwrap_or_default());
    *sent.method_mut() = request.method;
    *sent.uri_mut() = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *sent.headers_mut() = headers;
    Ok(sent)
}
