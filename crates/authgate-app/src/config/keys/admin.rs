//! `[admin]` and `[probes]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::server::LISTEN_ADDRESS;
use super::tls::{CHAIN, KEY};
use crate::config::reader::types::{Address, File, SecretText};
use crate::config::reader::{Key, Raw, Shape, Sub, Table};

pub(crate) static TABLE: Table = Table::new(
    "The listener for operators and probes. It is on by default, on loopback. It answers `/livez`, `/readyz`, `/metrics`, `/status`, \
     `/status.json`, `/config`, `/jwks.json`, `POST /reload` and `POST /revoke`, for requests whose host is localhost, an IP address or \
     one of `hosts`.",
    &[&LISTEN, &HOSTS, &TOKEN, &TLS],
);

/// The default of `listen`.
pub(crate) const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

pub(crate) static LISTEN: Key<Raw> = Key::new("listen", Raw(|| Shape::Text(LISTEN_ADDRESS).one_or_more()))
    .example(r#"listen = "127.0.0.1:9901""#)
    .absent("`\"127.0.0.1:9901\"`")
    .text("The addresses. Socket files have the mode 0600. A change needs a restart.")
    .errors(&[
        "An address beyond loopback needs `token` and `tls`.",
        "An address is listed twice, or is also in `server.listen`.",
    ]);

pub(crate) static HOSTS: Key<Raw> = Key::new(
    "hosts",
    Raw(|| Shape::text("a host name in lower case, without a port").list()),
)
.example(r#"hosts = ["authgate.internal"]"#)
.absent("none")
.text("Further host names that requests may have, such as the one that Prometheus uses.");

pub(crate) static TOKEN: Key<SecretText> = Key::new("token", SecretText)
    .required_if("if `listen` has an address beyond loopback")
    .example(r#"token = { file = "admin.token" }"#)
    .absent("no token is needed, and `POST /revoke` is refused")
    .text(
        "The token that requests present, as `Authorization: Bearer …` or as the password of Basic. `/livez`, `/readyz` and \
         `/jwks.json` need none.",
    )
    .errors(&[
        "The token is empty, or has other characters than visible ASCII.",
        "Warning: it has fewer than 16 characters.",
    ]);

pub(crate) static TLS: Key<Sub> = Key::new("tls", Sub(&tls::TABLE))
    .required_if("if `listen` has an address beyond loopback")
    .example(r#"tls = { chain = "admin.pem", key = "admin.key" }"#)
    .absent("no TLS")
    .text("TLS on the TCP addresses of this listener.");

pub(crate) mod tls {
    use super::*;

    pub(crate) static TABLE: Table = Table::new("TLS of the admin listener.", &[&CHAIN, &KEY, &CLIENT_CA]);

    pub(crate) static CLIENT_CA: Key<File> = Key::new("client_ca", File)
        .example(r#"client_ca = "operators.pem""#)
        .absent("clients are not asked for a certificate")
        .text("A PEM file with authorities. Clients must then present a certificate that one of them has signed.");
}

pub(crate) static PROBES: Table = Table::new(
    "A listener that answers `/livez` and `/readyz` alone, without TLS and without a token. It is off without this table.",
    &[&PROBES_LISTEN],
);

pub(crate) static PROBES_LISTEN: Key<Address> = Key::new("listen", Address)
    .required()
    .example(r#"listen = "0.0.0.0:9902""#)
    .text("Its address.")
    .errors(&["The address is also in `server.listen` or `admin.listen`."]);
