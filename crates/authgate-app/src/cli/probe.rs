//! `authgate probe`: whether a gateway is ready, as an exit code. For containers that have no shell and no HTTP client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};

use super::admin_client::{self, AdminClient};
use super::http_client::Address;
use super::{Failure, output, runtime};
use crate::config;

/// The time for each address. `HEALTHCHECK` of Docker and exec probes of Kubernetes have limits of their own.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest response that is read.
const MAX_ANSWER: usize = 64 << 10;
/// The longest part of a response that is printed.
const MAX_SHOWN: usize = 200;
const READY: &str = "/readyz";

/// Ask a gateway whether it is ready, for health checks of containers
///
/// Exit code 0: /readyz answers 200. Exit code 1: it does not, within 5 seconds; one line says why. The address is that of `[probes]`
/// in the configuration, or else that of `[admin]`. Errors elsewhere in the configuration do not matter.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Ask this listener, `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`, instead of that of the file. A URL may have another path,
    /// such as `http://127.0.0.1:9902/livez`
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The authorities of the certificate of the listener, instead of those of the system
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  authgate probe --config /etc/authgate/gateway.toml
  authgate probe --url http://127.0.0.1:9902
  authgate probe --url unix:/run/authgate/admin.sock

In a Dockerfile:
  HEALTHCHECK CMD [\"/usr/bin/authgate\", \"probe\"]";

pub(super) fn run(args: &Args, file: &Path) -> Result<(), Failure> {
    let (addresses, target) = match &args.url {
        Some(url) => parse(url)?,
        None => (configured(file)?, READY.to_owned()),
    };
    let request = Request::get(&*target)
        .body(Bytes::new())
        .map_err(|error| Failure::Usage(format!("--url: {error}")))?;
    let client = AdminClient::new(addresses, None, args.ca.clone());
    let answer = runtime()?.block_on(client.send(request, TIMEOUT, MAX_ANSWER));
    let (address, answer) = answer.map_err(|problems| Failure::Failed(format!("no gateway answers: {problems}")))?;
    if answer.status() == StatusCode::OK {
        return output::line(format_args!("{address}{target}: {}", answer.status()));
    }
    let text = String::from_utf8_lossy(answer.body());
    let text: String = text
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(MAX_SHOWN)
        .collect();
    Err(Failure::Failed(format!(
        "{address}{target}: {}: {text}",
        answer.status()
    )))
}

/// The address and the path of `--url`.
fn parse(url: &str) -> Result<(Vec<Address>, String), Failure> {
    let uri: Option<Uri> = url.parse().ok();
    let path = uri
        .as_ref()
        .filter(|uri| uri.authority().is_some())
        .and_then(Uri::path_and_query);
    match path {
        Some(path) if path.as_str() != "/" => {
            let base = url.strip_suffix(path.as_str()).unwrap_or(url);
            Ok((vec![Address::parse("--url", base)?], path.to_string()))
        }
        Some(_) | None => Ok((vec![Address::parse("--url", url)?], READY.to_owned())),
    }
}

/// The addresses of the configuration. A container takes exit code 2 for something else than an unhealthy one, so each problem is exit code 1.
fn configured(file: &Path) -> Result<Vec<Address>, Failure> {
    let contact = config::admin_contact(file).map_err(|error| {
        let problem = error.report().problems().first().map(|problem| problem.message.clone());
        Failure::Failed(format!(
            "{}: {}; name the file with --config FILE, or the listener with --url URL",
            file.display(),
            problem.unwrap_or_default()
        ))
    })?;
    let addresses = match &contact.probes {
        Some(listen) => {
            let authority = admin_client::reachable(listen);
            authority.map(Address::Http).into_iter().collect()
        }
        None => admin_client::admin_addresses(&contact, file),
    };
    if addresses.is_empty() {
        return Err(Failure::Failed(format!(
            "{} has no usable address in `[probes] listen` or `[admin] listen`; name the listener with --url URL",
            file.display()
        )));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_have_a_path() {
        for (url, expected) in [
            ("http://127.0.0.1:9902", Some("http://127.0.0.1:9902 /readyz")),
            ("http://127.0.0.1:9902/", Some("http://127.0.0.1:9902 /readyz")),
            ("http://[::1]:9902/livez", Some("http://[::1]:9902 /livez")),
            ("https://localhost/x?y=/x?y=", Some("https://localhost /x?y=/x?y=")),
            ("unix:/run/admin.sock", Some("unix:/run/admin.sock /readyz")),
            ("unix:", None),
            ("localhost:9902", None),
            ("ftp://localhost/x", None),
            ("http://user@localhost/livez", None),
        ] {
            let parsed = parse(url).ok();
            let parsed = parsed.map(|(addresses, target)| format!("{} {target}", addresses[0]));
            assert_eq!(parsed.as_deref(), expected, "{url}");
        }
    }
}
