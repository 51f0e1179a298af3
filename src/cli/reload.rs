//! `authgate reload`: asks the running gateway to read its configuration again.

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use authgate_core::secret::Secret;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::http_client::{self, Address};
use super::{Failure, output};
use crate::config::{self, AdminContact};
use crate::file;

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

pub(super) fn run(args: &Args, file: &Path) -> Result<(), Failure> {
    let (addresses, token) = match (&args.admin, &args.token) {
        (Some(url), Some(token)) => (vec![Address::parse("--admin", url)?], Some(read_token(token)?)),
        (Some(url), None) => (vec![Address::parse("--admin", url)?], None),
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
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/reload")
        .header("x-authgate-command", "reload");
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .map_err(|_| io::Error::other("the token is not valid in a header"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Bytes::new()).map_err(io::Error::other)?;
    let tls = match address {
        Address::Https(_) => Some(http_client::tls(ca)?),
        Address::Http(_) | Address::Unix(_) => None,
    };
    let (head, body) = http_client::send(address, request, tls, MAX_ANSWER).await?.into_parts();
    Ok((head.status, body))
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
