//! What a first gateway.toml depends on. Each answer is checked by the reader of gateway.toml itself, in a small file around it.

use std::net::SocketAddr;
use std::path::Path;

use authgate_auth::jwt::keys::{Algorithm, VerificationKey};
use authgate_dataplane::file;

use super::toml::{list, quoted};
use crate::config::{self, Severity};

/// The answers to all questions.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    pub(super) listen: Listen,
    pub(super) domains: Vec<String>,
    pub(super) certificate: Certificate,
    /// The URL of the application.
    pub(super) application: String,
    pub(super) tokens: Tokens,
    pub(super) jwt: Jwt,
}

/// `server.listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listen(pub(super) Vec<String>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Certificate {
    /// Files that exist.
    Files { chain: String, key: String },
    /// A certificate for `localhost`, made now.
    Development,
    /// From an authority, by ACME.
    Acme { email: Option<String> },
    /// A proxy before the gateway terminates TLS.
    None,
}

/// Where opaque tokens are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tokens {
    /// A file that `authgate token` and `authgate user` write.
    File(String),
    /// The URL of Redis.
    Redis(String),
    /// The URL of the database of a Django application.
    Django(String),
    None,
}

/// Which JWTs are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Jwt {
    None,
    /// A pair of keys, made now.
    NewKey,
    /// A public key in PEM.
    PublicKey {
        file: String,
        algorithm: Algorithm,
    },
    /// Those of an identity provider.
    Issuer {
        url: String,
        audience: String,
    },
}

pub(super) const DEFAULT_APPLICATION: &str = "http://127.0.0.1:8000";
/// The public half of the key pair that is made for JWTs.
pub(super) const JWT_PUBLIC_KEY: &str = "jwt.pub.pem";
pub(super) const DEFAULT_TOKENS_FILE: &str = "tokens.toml";

/// How to write `--tokens`.
const TOKENS_HELP: &str = "write `file`, `none`, the name of a .toml file, or the URL of Redis (redis://, rediss://, unix://) or of Django's database \
                           (postgres://, mysql://, sqlite:)";

impl Listen {
    /// The usual addresses: this machine alone, or all of it if there are domain names.
    pub(super) fn usual(domains: &[String], certificate: Option<&Certificate>) -> Self {
        let addresses = match certificate {
            Some(Certificate::None) => &["127.0.0.1:8080"][..],
            _ if domains.is_empty() => &["127.0.0.1:8443"],
            _ => &["0.0.0.0:443", "[::]:443"],
        };
        Self(addresses.iter().map(|address| (*address).to_owned()).collect())
    }

    /// # Errors
    /// What to write instead.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let listen = Self(words(text));
        check(&format!("{}\n{BASE}", listen.server(true)), Path::new(""))?;
        Ok(listen)
    }

    /// Whether only this machine can connect.
    pub(super) fn is_local(&self) -> bool {
        self.0.iter().all(|address| {
            let tcp = address.parse::<SocketAddr>();
            tcp.map_or(address.starts_with("unix:"), |tcp| tcp.ip().is_loopback())
        })
    }

    /// The addresses for clients that come over http, if there are some that come over https to the usual port.
    pub(super) fn redirects(&self) -> Vec<String> {
        let addresses = self.0.iter().filter_map(|address| address.parse::<SocketAddr>().ok());
        let https = addresses.filter(|address| address.port() == 443);
        https
            .map(|address| SocketAddr::new(address.ip(), 80).to_string())
            .collect()
    }

    fn server(&self, cleartext: bool) -> String {
        let cleartext = if cleartext { "\nallow_cleartext = true" } else { "" };
        format!("[server]\nlisten = {}{cleartext}", list(&self.0))
    }
}

impl Certificate {
    /// # Errors
    /// What to write instead.
    pub(super) fn files(chain: &str, key: &str, folder: &Path) -> Result<Self, String> {
        let tls = format!(
            "[server.tls]\ncertificates = [{{ chain = {}, key = {} }}]",
            quoted(chain),
            quoted(key)
        );
        check(&format!("{LOCAL}\n{tls}\n{BASE}"), folder)?;
        Ok(Self::Files {
            chain: chain.to_owned(),
            key: key.to_owned(),
        })
    }

    /// `email`: empty for none.
    ///
    /// # Errors
    /// What to write instead.
    pub(super) fn acme(email: &str) -> Result<Self, String> {
        let email = email.trim();
        if email.is_empty() {
            return Ok(Self::Acme { email: None });
        }
        let tls = format!(
            "[server.tls]\nacme = {{ domains = [\"a.example\"], email = {} }}",
            quoted(email)
        );
        check(&format!("{LOCAL}\n{tls}\n{BASE}"), Path::new(""))?;
        Ok(Self::Acme {
            email: Some(email.to_owned()),
        })
    }
}

/// Host names, separated by commas or spaces.
///
/// # Errors
/// What to write instead.
pub(super) fn domains(text: &str) -> Result<Vec<String>, String> {
    let domains = words(text);
    if !domains.is_empty() {
        let tls = format!("[server.tls]\nacme = {{ domains = {} }}", list(&domains));
        check(&format!("{LOCAL}\n{tls}\n{BASE}"), Path::new(""))?;
    }
    Ok(domains)
}

/// # Errors
/// What to write instead.
pub(super) fn application(text: &str) -> Result<String, String> {
    let text = text.trim();
    let upstream = format!("[upstreams.app]\nservers = [{}]", quoted(text));
    check(&format!("{LOCAL}\n{upstream}\n{ROUTE}"), Path::new(""))?;
    Ok(text.to_owned())
}

impl Tokens {
    /// # Errors
    /// What to write instead.
    pub(super) fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let text = text.trim();
        let begins = |schemes: &[&str]| schemes.iter().any(|scheme| text.starts_with(scheme));
        let (tokens, kind, key) = match text {
            "none" => return Ok(Self::None),
            "file" => return Ok(Self::File(DEFAULT_TOKENS_FILE.to_owned())),
            _ if begins(&["redis://", "rediss://", "unix://"]) => (Self::Redis(text.to_owned()), "redis", "url"),
            _ if begins(&["postgres://", "postgresql://", "mysql://", "mariadb://", "sqlite:"]) => {
                (Self::Django(text.to_owned()), "django", "url")
            }
            _ if Path::new(text).extension().is_some_and(|extension| extension == "toml") => {
                (Self::File(text.to_owned()), "embedded", "file")
            }
            _ => return Err(format!("{text:?} is no place for tokens: {TOKENS_HELP}")),
        };
        let store = format!("[stores.tokens]\nkind = \"{kind}\"\n{key} = {}", quoted(text));
        let authenticator = "[authenticators.token]\nkind = \"token\"";
        check(&format!("{LOCAL}\n{store}\n{authenticator}\n{BASE}"), folder)?;
        Ok(tokens)
    }
}

impl Jwt {
    /// # Errors
    /// What to write instead.
    pub(super) fn public_key(name: &str, folder: &Path) -> Result<Self, String> {
        const ALGORITHMS: [Algorithm; 5] = [
            Algorithm::RS256,
            Algorithm::ES256,
            Algorithm::EdDSA,
            Algorithm::ES384,
            Algorithm::ES512,
        ];
        let help = "name a public key in PEM, such as `openssl pkey -in jwt.key -pubout -out jwt.pub.pem` writes";
        let pem = file::read(&folder.join(name)).map_err(|error| format!("{name} cannot be read: {error}; {help}"))?;
        let read = |algorithm: Algorithm| VerificationKey::from_pem(algorithm, None, &pem);
        match ALGORITHMS.into_iter().find(|algorithm| read(*algorithm).is_ok()) {
            Some(algorithm) => Ok(Self::PublicKey {
                file: name.to_owned(),
                algorithm,
            }),
            None => {
                let problem = read(Algorithm::RS256).err().map(|error| error.to_string());
                Err(format!("{name}: {}; {help}", problem.unwrap_or_default()))
            }
        }
    }

    /// # Errors
    /// What to write instead.
    pub(super) fn issuer(url: &str, audience: &str) -> Result<Self, String> {
        let issuer = Self::Issuer {
            url: url.trim().to_owned(),
            audience: audience.trim().to_owned(),
        };
        if audience.trim().is_empty() {
            return Err(
                "the audience is empty: write what `aud` of your tokens has, often the identifier of the API; otherwise tokens \
                        for other APIs of the issuer would be accepted"
                    .to_owned(),
            );
        }
        let keys = issuer.keys();
        check(
            &format!("{LOCAL}\n[authenticators.jwt]\nkind = \"jwt\"\n{keys}\n{BASE}"),
            Path::new(""),
        )?;
        Ok(issuer)
    }

    /// The lines of the authenticator that say which keys it has.
    pub(super) fn keys(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::NewKey => format!(
                "keys = [{{ algorithm = \"ES256\", file = {} }}]",
                quoted(JWT_PUBLIC_KEY)
            ),
            Self::PublicKey { file, algorithm } => format!(
                "keys = [{{ algorithm = {}, file = {} }}]",
                quoted(&format!("{algorithm:?}")),
                quoted(file)
            ),
            Self::Issuer { url, audience } => format!(
                "discovery = {url}\nissuer = {url}\naudience = {audience}\nalgorithms = [\"RS256\"]\nprofile = \"plain\"\nusers = \"none\"",
                url = quoted(url),
                audience = quoted(audience)
            ),
        }
    }
}

const LOCAL: &str = "[server]\nlisten = [\"127.0.0.1:8443\"]";
const ROUTE: &str = "[[routes]]\npath = \"/*\"\npublic = true\nupstream = \"app\"";
const BASE: &str = "[upstreams.app]\nservers = [\"http://127.0.0.1:8000\"]\n[[routes]]\npath = \"/*\"\npublic = true\nupstream = \"app\"";

/// Reads a small gateway.toml around one answer; its first error, with what to write instead.
fn check(text: &str, folder: &Path) -> Result<(), String> {
    let Err(error) = config::parse("gateway.toml", text, folder) else {
        return Ok(());
    };
    let problems = error.report().problems();
    let first = problems.iter().find(|problem| problem.severity == Severity::Error);
    Err(first.map_or_else(
        || error.to_string(),
        |problem| format!("{}; {}", problem.message, problem.help),
    ))
}

fn words(text: &str) -> Vec<String> {
    text.split([',', ' '])
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}
