//! How commands reach the control listeners of a running gateway: by flags, or by the configuration that it was started with.

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use authgate_core::secret::Secret;
use authgate_dataplane::file;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use rustls::ClientConfig;
use tokio::time::timeout;

use super::Failure;
use super::http_client::{self, Address};
use crate::config::{self, AdminContact};

/// The flags that name an admin listener.
#[derive(Debug, clap::Args)]
pub(super) struct AdminFlags {
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

impl AdminFlags {
    /// The listener that the flags name, or that of the configuration.
    ///
    /// # Errors
    /// A flag is wrong, or the configuration cannot be read or has no usable address.
    pub(super) fn client(&self, file: &Path) -> Result<AdminClient, Failure> {
        let token = self.token.as_deref().map(read_token).transpose()?;
        let (addresses, token) = match &self.admin {
            Some(url) => (vec![Address::parse("--admin", url)?], token),
            None => {
                let contact = config::admin_contact(file)?;
                let addresses = admin_addresses(&contact, file);
                if addresses.is_empty() {
                    return Err(Failure::Usage(format!(
                        "{} has no usable `[admin] listen`; name the admin listener with --admin URL",
                        file.display()
                    )));
                }
                (addresses, token.or(contact.token))
            }
        };
        Ok(AdminClient::new(addresses, token, self.ca.clone()))
    }
}

fn read_token(file: &Path) -> Result<Secret<String>, Failure> {
    let text = file::read(file)
        .and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other))
        .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", file.display())))?;
    Ok(Secret::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}

/// The usable addresses of `[admin] listen`. Socket files come first: they need no TLS.
pub(super) fn admin_addresses(contact: &AdminContact, file: &Path) -> Vec<Address> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut addresses = Vec::new();
    for listen in &contact.listen {
        if let Some(path) = listen.strip_prefix("unix:") {
            addresses.insert(0, Address::Unix(folder.join(path)));
        } else if let Some(authority) = reachable(listen) {
            addresses.push(if contact.tls {
                Address::Https(authority)
            } else {
                Address::Http(authority)
            });
        }
    }
    addresses
}

/// The authority that reaches a listener on this address, from the same machine.
pub(super) fn reachable(listen: &str) -> Option<String> {
    let mut address: SocketAddr = listen.parse().ok()?;
    if address.ip() == Ipv4Addr::UNSPECIFIED {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    } else if address.ip() == Ipv6Addr::UNSPECIFIED {
        address.set_ip(Ipv6Addr::LOCALHOST.into());
    }
    Some(address.to_string())
}

/// Sends requests to a control listener.
#[derive(Debug)]
pub(super) struct AdminClient {
    /// They are tried in this order.
    addresses: Vec<Address>,
    token: Option<Secret<String>>,
    ca: Option<PathBuf>,
    /// Made for the first https address.
    tls: OnceCell<Arc<ClientConfig>>,
}

impl AdminClient {
    pub(super) fn new(addresses: Vec<Address>, token: Option<Secret<String>>, ca: Option<PathBuf>) -> Self {
        Self {
            addresses,
            token,
            ca,
            tls: OnceCell::new(),
        }
    }

    /// Sends a request, with the token, to one address after the other, until there is a complete response of at most `max_body` bytes.
    /// `limit` is the time for each address.
    ///
    /// # Errors
    /// No address answers.
    pub(super) async fn send(
        &self,
        mut request: Request<Bytes>,
        limit: Duration,
        max_body: usize,
    ) -> Result<(&Address, Response<Bytes>), NoAnswer> {
        if let Some(token) = &self.token {
            match HeaderValue::try_from(format!("Bearer {}", token.expose())) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    request.headers_mut().insert(AUTHORIZATION, value);
                }
                Err(_) => return Err(NoAnswer(vec!["the token is not valid in a header".to_owned()])),
            }
        }
        let mut problems = Vec::new();
        for address in &self.addresses {
            let sent = async {
                let tls = self.tls(address)?;
                http_client::send(address, request.clone(), tls, max_body).await
            };
            match timeout(limit, sent).await {
                Ok(Ok(response)) => return Ok((address, response)),
                Ok(Err(problem)) => problems.push(format!("{address}: {problem}")),
                Err(_) => problems.push(format!("{address}: no answer within {limit:?}")),
            }
        }
        Err(NoAnswer(problems))
    }

    fn tls(&self, address: &Address) -> io::Result<Option<Arc<ClientConfig>>> {
        match address {
            Address::Http(_) | Address::Unix(_) => Ok(None),
            Address::Https(_) => {
                let tls = match self.tls.get() {
                    Some(tls) => Arc::clone(tls),
                    None => {
                        let tls = http_client::tls(self.ca.as_deref())?;
                        Arc::clone(self.tls.get_or_init(|| tls))
                    }
                };
                Ok(Some(tls))
            }
        }
    }
}

/// Why there is no response: for each address, in the order of the attempts.
#[derive(Debug)]
pub(super) struct NoAnswer(Vec<String>);

impl NoAnswer {
    /// One problem per line, indented, each after a line break.
    pub(super) fn lines(&self) -> String {
        self.0.iter().map(|problem| format!("\n  {problem}")).collect()
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}
