//! TLS as a server (`[server.tls]`) and as a client (`tls` of upstreams and stores).

use authgate_dataplane::tls::provider::TlsVersion;

use super::NEW;
use crate::config::reader::types::{File, Special, Text, Words};
use crate::config::reader::{DefaultKey, Form, Key, Raw, Shape, Sub, Table};

pub(crate) static SERVER: Table = Table::new(
    "TLS for clients. A changed file is read again by itself, without a restart.",
    &[&CERTIFICATES, &MIN_VERSION, &CLIENT_AUTH, &TICKETS, &ACME],
);

pub(crate) static CERTIFICATES: Key<Raw> = Key::new(
    "certificates",
    Raw(|| Shape::Table(&CERTIFICATE).non_empty_list()),
)
.required_if("without `acme`")
.example(r#"certificates = [{ chain = "server.pem", key = "server.key" }]"#)
.text(
    "The certificates. The name that the client asks for (SNI) chooses one; without a match, or without SNI, it is the first.",
);

pub(crate) static CERTIFICATE: Table = Table::new("A certificate.", &[&CHAIN, &KEY]);

pub(crate) static CHAIN: Key<File> = Key::new("chain", File)
    .required()
    .example(r#"chain = "server.pem""#)
    .text("A PEM file with the server's certificate, and after it each certificate that signed the one before.")
    .errors(&[
        "The file has no certificate, or the key does not belong to it.",
        "Warning: the certificate has expired or expires within 30 days, or the chain is incomplete.",
    ]);

pub(crate) static KEY: Key<File> = Key::new("key", File)
    .required()
    .example(r#"key = "server.key""#)
    .text("A PEM file with the private key of the certificate.")
    .errors(&["Warning: every user of the machine can read the file."]);

pub(crate) static MIN_VERSION: DefaultKey<Words<TlsVersion>> = Key::new(
    "min_version",
    Words(&[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)]),
)
.or(TlsVersion::Tls12)
.example(r#"min_version = "1.3""#)
.text("The lowest version of TLS that clients may use.");

pub(crate) static CLIENT_AUTH: Key<Sub> = Key::new("client_auth", Sub(&client_auth::TABLE))
    .example(r#"client_auth = { mode = "required", ca = "clients-ca.pem" }"#)
    .absent("clients are not asked for a certificate")
    .text("Whether clients present certificates (mutual TLS).");

pub(crate) mod client_auth {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Mode {
        Off,
        Optional,
        Required,
    }

    pub(crate) static TABLE: Table = Table::new(
        "Certificates of clients. They protect the connection, and `certificate_bound` of an authenticator binds tokens to them. They \
         are no credential by themselves.",
        &[&MODE, &CA],
    );

    pub(crate) static MODE: DefaultKey<Words<Mode>> = Key::new(
        "mode",
        Words(&[
            ("off", Mode::Off),
            ("optional", Mode::Optional),
            ("required", Mode::Required),
        ]),
    )
    .or(Mode::Off)
    .example(r#"mode = "required""#)
    .text("`optional`: clients may present a certificate; an invalid one still fails the handshake. `required`: clients without one are refused.");

    pub(crate) static CA: Key<File> = Key::new("ca", File)
        .required_if("unless `mode` is `\"off\"`")
        .example(r#"ca = "clients-ca.pem""#)
        .text("A PEM file with the authorities that sign the clients' certificates.");
}

pub(crate) static TICKETS: Key<Sub> = Key::new("tickets", Sub(&TICKETS_TABLE))
    .example(r#"tickets = { file = "tickets.keys" }"#)
    .absent("each gateway makes keys of its own, and other gateways do not resume its sessions")
    .text("Keys of session tickets that several gateways share, so that a client can resume its TLS session on any of them.");

pub(crate) static TICKETS_TABLE: Table = Table::new("Shared keys of session tickets.", &[&TICKETS_FILE]);

pub(crate) static TICKETS_FILE: Key<File> = Key::new("file", File)
    .required()
    .example(r#"file = "tickets.keys""#)
    .text(
        "A file with a key on each line: 80 bytes in base64, as `openssl rand -base64 80` writes. The first key encrypts, and all of \
         them decrypt: to rotate, add a key at the top, and remove the old one 12 hours later.",
    );

pub(crate) static ACME: Key<Sub> = Key::new("acme", Sub(&acme::TABLE))
    .example(r#"acme = { domains = ["api.example.com"], email = "ops@example.com" }"#)
    .absent("certificates are those of `certificates`")
    .text("Certificates that the gateway obtains and renews by itself (RFC 8555), from Let's Encrypt or another authority. By using it you accept the terms of service of the authority.");

pub(crate) mod acme {
    use super::*;

    pub(crate) static TABLE: Table = Table::new(
        "Certificates from an ACME authority. It validates hosts by TLS-ALPN-01 on port 443 of `server.listen`, or by HTTP-01 on port 80 \
         of `server.redirect_http` if that is there.",
        &[&DOMAINS, &EMAIL, &DIRECTORY, &CA, &STORE],
    );

    pub(crate) static DOMAINS: Key<Raw> = Key::new(
        "domains",
        Raw(|| Shape::text("a host name in lower case, without a wildcard").non_empty_list()),
    )
    .required()
    .example(r#"domains = ["api.example.com"]"#)
    .text("The host names. Each gets a certificate of its own.")
    .errors(&["A wildcard: authorities validate wildcards by DNS only."]);

    pub(crate) static EMAIL: Key<Raw> = Key::new("email", Raw(|| Shape::text("an e-mail address")))
        .example(r#"email = "ops@example.com""#)
        .absent("the account has no address")
        .text("Where the authority sends warnings.");

    pub(crate) static DIRECTORY: DefaultKey<Special> = Key::new(
        "directory",
        Special(Form::matching("the https URL of an ACME directory", "^https://")),
    )
    .or("https://acme-v02.api.letsencrypt.org/directory")
    .text("The authority. The default is Let's Encrypt.");

    pub(crate) static CA: Key<File> = Key::new("ca", File)
        .example(r#"ca = "acme-ca.pem""#)
        .absent("the root certificates of the system")
        .text("A PEM file with the authorities that sign the certificate of `directory`, for an authority inside of your network.");

    pub(crate) static STORE: DefaultKey<Special> = Key::new("store", Special(Form::matching("the path of a folder", ".")))
        .or("/var/lib/authgate/acme")
        .text(
            "The folder for the account, keys and certificates. Gateways that share it order one certificate between them. The gateway \
             creates it.",
        );
}

pub(crate) static CLIENT: Table = Table::new(
    "TLS to a server, with the gateway as the client.",
    &[&CLIENT_CA, &SERVER_NAME, &CLIENT_CERT, &CLIENT_KEY],
);

pub(crate) static CLIENT_CA: Key<File> = Key::new("ca", File)
    .example(r#"ca = "ca.pem""#)
    .absent("the root certificates of the system")
    .text("A PEM file with the authorities that sign the server's certificate.");

pub(crate) static SERVER_NAME: Key<Text> = Key::new("server_name", Text("a host name"))
    .example(r#"server_name = "app.internal""#)
    .absent("the host of the URL")
    .text("The name that the server's certificate must have, also sent as SNI.");

pub(crate) static CLIENT_CERT: Key<File> = Key::new("cert", File)
    .required_if("beside `key`")
    .example(r#"cert = "gateway.pem""#)
    .absent("the gateway presents no certificate")
    .text("A PEM file with the certificate that the gateway presents, and its chain.");

pub(crate) static CLIENT_KEY: Key<File> = Key::new("key", File)
    .required_if("beside `cert`")
    .example(r#"key = "gateway.key""#)
    .text("A PEM file with the private key of `cert`.");

/// A PEM file of authorities that a provider's certificate is signed by.
pub(crate) static PROVIDER_CA: Key<File> = Key::new("ca", File)
    .since(NEW)
    .example(r#"ca = "ca.pem""#)
    .absent("the root certificates of the system")
    .text("A PEM file with the authorities that sign the certificate of the https server.")
    .errors(&["The URL is http."]);
