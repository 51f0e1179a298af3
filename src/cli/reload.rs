//! `authgate reload`: asks the running gateway to read its configuration again.

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use authgate_core::secret::Secret;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::{Failure, output};
use crate::config::{self, AdminContact};
use crate::file;
use crate::tls;
use crate::tls::client::ClientTlsSettings;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A gateway that checks a large configuration may take long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// The pause while another reload is under way.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// How often it asks while another reload is under way.
const MAX_ATTEMPTS: usize = 60;
const MAX_ANSWER: usize = 4 << 20;

/// Ask the running gateway to read its configuration again, and print what has changed or every problem
///
/// Exit code 0: the configuration is in force. Exit code 1: no gateway answers. Exit code 2: the gateway refuses the configuration, and serves
/// on with the old one.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The admin listener, as `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`, instead of `[admin] listen` of the file
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// The file of the token of the admin listener, instead of `[admin] token` of the file
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// The authorities of the certificate of the admin listener, instead of those of the system
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  authgate reload --config gateway.toml
  authgate reload --admin unix:/run/authgate/admin.sock
  authgate reload --admin https://gate.internal:9901 --token admin.token --ca ca.pem";

/// Where the admin listener is.
#[derive(Debug, Clone)]
enum Address {
    Http(String),
    Https(String),
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(authority) => write!(f, "http://{authority}"),
            Self::Https(authority) => write!(f, "https://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(super) fn run(args: &Args, file: &Path) -> Result<(), Failure> {
    let (addresses, token) = match (&args.admin, &args.token) {
        (Some(url), Some(token)) => (vec![parse_url(url)?], Some(read_token(token)?)),
        (Some(url), None) => (vec![parse_url(url)?], None),
        (None, token) => {
            let contact = config::admin_contact(file)?;
            let token = match token {
                Some(file) => Some(read_token(file)?),
                None => contact.token.clone(),
            };
            (addresses(&contact, file)?, token)
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(error.to_string()))?;
    runtime.block_on(ask(&addresses, token.as_ref(), args.ca.as_deref()))
}

fn parse_url(url: &str) -> Result<Address, Failure> {
    let help = || {
        Failure::Usage(format!(
            "--admin {url}: write `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`"
        ))
    };
    if let Some(path) = url.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Address::Unix(path.into()));
    }
    let uri: Uri = url.parse().map_err(|_| help())?;
    let authority = uri.authority().ok_or_else(help)?;
    if uri.path_and_query().is_some_and(|path| path.as_str() != "/") || authority.as_str().contains('@') {
        return Err(help());
    }
    match uri.scheme_str() {
        Some("http") => Ok(Address::Http(authority.to_string())),
        Some("https") => Ok(Address::Https(authority.to_string())),
        Some(_) | None => Err(help()),
    }
}

fn read_token(file: &Path) -> Result<Secret<String>, Failure> {
    let text = file::read(file)
        .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other))
        .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", file.display())))?;
    Ok(Secret::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}

/// The addresses of a file. Socket files come first: they need no TLS.
fn addresses(contact: &AdminContact, file: &Path) -> Result<Vec<Address>, Failure> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut addresses = Vec::new();
    for listen in &contact.listen {
        if let Some(path) = listen.strip_prefix("unix:") {
            addresses.insert(0, Address::Unix(folder.join(path)));
        } else if let Ok(mut address) = listen.parse::<SocketAddr>() {
            if address.ip() == Ipv4Addr::UNSPECIFIED {
                address.set_ip(Ipv4Addr::LOCALHOST.into());
            } else if address.ip() == Ipv6Addr::UNSPECIFIED {
                address.set_ip(Ipv6Addr::LOCALHOST.into());
            }
            let authority = address.to_string();
            addresses.push(if contact.tls {
                Address::Https(authority)
            } else {
                Address::Http(authority)
            });
        }
    }
    if addresses.is_empty() {
        return Err(Failure::Usage(format!(
            "{} has no usable `[admin] listen`; name the admin listener with --admin URL",
            file.display()
        )));
    }
    Ok(addresses)
}

async fn ask(addresses: &[Address], token: Option<&Secret<String>>, ca: Option<&Path>) -> Result<(), Failure> {
    for _ in 0..MAX_ATTEMPTS {
        let mut failures = String::new();
        let mut answered = None;
        for address in addresses {
            match timeout(ANSWER_TIMEOUT, post(address, token, ca)).await {
                Ok(Ok(answer)) => {
                    answered = Some((address, answer));
                    break;
                }
                Ok(Err(problem)) => {
                    let _ = write!(failures, "\n  {address}: {problem}");
                }
                Err(_) => {
                    let _ = write!(failures, "\n  {address}: no answer within {ANSWER_TIMEOUT:?}");
                }
            }
        }
        let Some((address, (status, body))) = answered else {
            return Err(Failure::Failed(format!(
                "no gateway answers at its admin listener:{failures}\nStart it, or name its admin listener with --admin URL."
            )));
        };
        if status != StatusCode::CONFLICT {
            return report(address, status, &body);
        }
        output::note(format_args!("another reload is under way; asking again"));
        sleep(BUSY_PAUSE).await;
    }
    Err(Failure::Failed(
        "other reloads were under way the whole time; try again".to_owned(),
    ))
}

/// Sends the command. Returns the status and the body of the answer.
async fn post(address: &Address, token: Option<&Secret<String>>, ca: Option<&Path>) -> io::Result<(StatusCode, Bytes)> {
    match address {
        Address::Unix(path) => {
            let unix = timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await??;
            send(unix, "localhost", token).await
        }
        Address::Http(authority) => {
            let tcp = timeout(CONNECT_TIMEOUT, connect(authority, 80)).await??;
            send(tcp, authority, token).await
        }
        Address::Https(authority) => {
            let ca = ca.map(tls::load_authorities).transpose().map_err(io::Error::other)?;
            let settings = ClientTlsSettings { ca, identity: None };
            let (client, _) = tls::client::config(&settings).map_err(io::Error::other)?;
            let uri: Uri = authority.parse().map_err(io::Error::other)?;
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let tcp = timeout(CONNECT_TIMEOUT, connect(authority, 443)).await??;
            let tls = timeout(
                CONNECT_TIMEOUT,
                TlsConnector::from(Arc::clone(&client)).connect(name, tcp),
            )
            .await??;
            send(tls, authority, token).await
        }
    }
}

async fn connect(authority: &str, default_port: u16) -> io::Result<TcpStream> {
    let uri: Uri = authority.parse().map_err(io::Error::other)?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(default_port);
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(tcp) => return Ok(tcp),
            Err(problem) => last = problem,
        }
    }
    Err(last)
}

async fn send<I>(io: I, host: &str, token: Option<&Secret<String>>) -> io::Result<(StatusCode, Bytes)>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/reload")
        .header(HOST, host)
        .header("x-authgate-command", "reload");
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .map_err(|_| io::Error::other("the token is not valid in a header"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER)
        .collect()
        .await
        .map_err(io::Error::other)?;
    connection.abort();
    Ok((head.status, body.to_bytes()))
}

fn report(address: &Address, status: StatusCode, body: &[u8]) -> Result<(), Failure> {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let problems = answer["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
    match status {
        StatusCode::OK => {
            print_problems(problems);
            let changes = answer["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
            for change in changes.iter().filter_map(Value::as_str) {
                output::line(format_args!("{change}"))?;
            }
            if changes.is_empty() {
                output::line(format_args!("The configuration is in force. Nothing has changed."))
            } else {
                output::line(format_args!("The configuration is in force."))
            }
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            print_problems(problems);
            Err(Failure::Usage(
                "the gateway refuses the configuration, and serves on with the old one".to_owned(),
            ))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Failure::Failed(format!(
            "the gateway at {address} does not accept the command ({status}): {}\nName the file of its token with --token FILE.",
            String::from_utf8_lossy(body).trim_end()
        ))),
        status => Err(Failure::Failed(format!(
            "{address} answers {status}: {}",
            String::from_utf8_lossy(body)
                .chars()
                .take(1000)
                .collect::<String>()
                .trim_end()
        ))),
    }
}

/// Prints problems as `authgate check` does, without the excerpts of the file: it may be on another machine.
fn print_problems(problems: &[Value]) {
    for problem in problems {
        let text = |name: &str| problem[name].as_str().unwrap_or_default();
        let number = |name: &str| {
            problem[name]
                .as_u64()
                .map(|number| format!(":{number}"))
                .unwrap_or_default()
        };
        let key = match text("key") {
            "" => String::new(),
            key => format!("[{key}]"),
        };
        output::problem(format_args!(
            "{}{key}: {}\n  --> {}{}{}\n   = help: {}\n",
            text("severity"),
            text("message"),
            text("file"),
            number("line"),
            number("column"),
            text("help"),
        ));
    }
}
