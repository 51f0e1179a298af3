//! `tls` of an upstream or a store: the gateway is the client.

use std::sync::Arc;

use authgate_dataplane::tls::client::{self, ClientTlsSettings};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::certificates::{self, authorities};
use crate::config::keys::tls as keys;
use crate::config::reader::{Item, Key, Section, Sub};

/// The configuration of TLS to a server.
pub(super) struct ClientTls {
    pub(super) config: Arc<ClientConfig>,
    /// A hash of everything that `config` was made from.
    pub(super) made_from: [u8; 32],
    /// The name in the certificate of the server; `None`: its host.
    pub(super) server_name: Option<ServerName<'static>>,
}

/// Takes `key`, the `tls` of `parent`: `ca`, `cert`, `key` and `server_name`, all of them optional. `is_used`: a server is reached with TLS. Otherwise
/// the table is an error; `unused` is what is wrong, and what to write instead.
pub(super) fn client_tls(
    parent: &mut Section<'_>,
    key: &'static Key<Sub>,
    is_used: bool,
    unused: (&str, &str),
) -> Option<ClientTls> {
    let item = parent.take(key);
    if !is_used {
        if let Some(item) = item {
            let (problem, help) = unused;
            item.refuse(problem, help);
        }
        return None;
    }
    let (mut settings, mut server_name) = (ClientTlsSettings::default(), None);
    if let Some(item) = item {
        let mut section = item.section(&keys::CLIENT)?;
        settings.ca = section.take(&keys::CLIENT_CA).and_then(|item| authorities(&item));
        server_name = section.take(&keys::SERVER_NAME).and_then(|item| name(&item));
        let (cert, key) = (section.take(&keys::CLIENT_CERT), section.take(&keys::CLIENT_KEY));
        match (&cert, &key) {
            (Some(cert), Some(key)) => match client::load_identity(&cert.path()?, &key.path()?) {
                Ok(identity) => {
                    certificates::warn_about_expiry(cert, &cert.path()?);
                    key.warn_if_readable_by_all(&key.path()?);
                    settings.identity = Some(identity);
                }
                Err(error) => cert.refuse(
                    error.to_string(),
                    "set `cert` to a PEM file with the chain, and `key` to one with its private key",
                ),
            },
            (None, None) => {}
            (Some(one), None) | (None, Some(one)) => {
                one.refuse("`cert` and `key` must be set together", "write both `cert` and `key`");
            }
        }
    }
    match client::config(&settings) {
        Ok((config, made_from)) => Some(ClientTls {
            config,
            made_from,
            server_name,
        }),
        Err(error) => {
            parent.report_missing(
                error.to_string(),
                "write `tls = { ca = \"ca.pem\" }`, or install the system's root certificates",
            );
            None
        }
    }
}

fn name(item: &Item<'_>) -> Option<ServerName<'static>> {
    let text = item.text()?;
    let name = ServerName::try_from(text.as_str().to_owned()).ok();
    if name.is_none() {
        text.refuse("is not a server name", "write a host name, such as \"app.internal\"");
    }
    name
}
