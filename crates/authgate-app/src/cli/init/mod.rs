//! `authgate init`: writes a first gateway.toml, from five questions or from flags.

mod answers;
mod files;
mod questions;
mod render;
mod toml;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use inquire::InquireError;

use self::answers::{Answers, Certificate, Jwt, Listen, Tokens};
use self::files::{NewFile, Written};
use super::{Failure, output};
use crate::config;

/// Write a first gateway.toml, from five questions or from flags
///
/// The questions: where clients connect, which certificate the gateway has, where the application listens, where opaque tokens are, and which
/// JWTs are accepted. A flag answers its question. With --yes, or without a terminal, nothing is asked, and the defaults are used.
/// Private keys are written with mode 0600. No file is replaced, except gateway.toml with --force.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The file to write, instead of that of --config; keys and certificates are written to its folder
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it exists. Keys and certificates are never replaced
    #[arg(long)]
    force: bool,
    /// Ask nothing: use the flags, and the defaults for the others
    #[arg(long, short)]
    yes: bool,
    /// A domain name that clients use. Repeatable
    #[arg(long, value_name = "NAME")]
    domain: Vec<String>,
    /// An address to listen on, IP:PORT or unix:PATH. Repeatable. The default is 127.0.0.1:8443; with --domain, port 443 of all addresses
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// The certificate: made now for development (the default), from an authority by ACME, or none if a proxy terminates TLS
    #[arg(long, value_enum, value_name = "KIND", conflicts_with = "chain")]
    certificate: Option<CertificateFlag>,
    /// The file of a certificate and its chain, PEM; the certificate comes first
    #[arg(long, value_name = "PEM", requires = "key")]
    chain: Option<PathBuf>,
    /// The file of its private key, PEM
    #[arg(long, value_name = "PEM", requires = "chain")]
    key: Option<PathBuf>,
    /// The e-mail address of the ACME account
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Where the application listens: http://HOST:PORT, https://HOST:PORT or unix:/PATH. The default is http://127.0.0.1:8000
    #[arg(long, value_name = "URL")]
    application: Option<String>,
    /// Where opaque tokens are: `file` (the default, tokens.toml) or another .toml file, the URL of Redis, the URL of Django's database, or `none`
    #[arg(long, value_name = "PLACE")]
    tokens: Option<String>,
    /// Which JWTs are accepted: `none` (the default), `new` (a key is made now), the file of a public key, or the https URL of an issuer
    #[arg(long, value_name = "KEY")]
    jwt: Option<String>,
    /// The audience of the issuer's tokens
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum CertificateFlag {
    Development,
    Acme,
    None,
}

const EXAMPLES: &str = "\
Examples:
  authgate init
  authgate init --yes --jwt new
  authgate init --yes --domain api.example.com --certificate acme --tokens redis://127.0.0.1:6379/0 --output /etc/authgate/gateway.toml
  authgate init --yes --certificate none --listen unix:/run/authgate/gate.sock --application unix:/run/app.sock
  authgate init --yes --tokens none --jwt https://idp.example.com/realms/shop --audience orders-api";

const NOTHING_AUTHENTICATES: &str = "there are no tokens and no JWTs, so no request could be authenticated: pass `--jwt new`, the file of a public key, \
     the URL of an issuer, or another place with --tokens";

/// What the flags answer.
struct Given {
    domains: Option<Vec<String>>,
    listen: Option<Listen>,
    certificate: Option<Certificate>,
    application: Option<String>,
    tokens: Option<Tokens>,
    jwt: Option<Jwt>,
}

/// `file`: that of `--config`, or the usual one.
pub(super) fn run(args: &Args, file: &Path) -> Result<(), Failure> {
    let output = args.output.as_deref().unwrap_or(file);
    if output.exists() && !args.force {
        return Err(Failure::Usage(format!(
            "{} exists. Write another file with --output FILE, or replace it with --force",
            output.display()
        )));
    }
    let folder = output.parent().unwrap_or(Path::new(""));
    let given = args.given(folder)?;
    let answers = if args.yes || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        given.or_defaults()?
    } else {
        output::note(format_args!(
            "five questions. Enter takes the answer in parentheses, Ctrl-C ends without writing anything"
        ));
        questions::ask(given, folder).map_err(|error| ended(&error))?
    };
    if answers.tokens == Tokens::None && answers.jwt == Jwt::None {
        return Err(Failure::Usage(NOTHING_AUTHENTICATES.to_owned()));
    }
    let files = write(&answers, output, folder)?;
    report(&answers, &files, output)
}

fn ended(error: &InquireError) -> Failure {
    match error {
        InquireError::OperationCanceled | InquireError::OperationInterrupted => {
            Failure::Failed("ended by the user; nothing was written".to_owned())
        }
        InquireError::NotTTY
        | InquireError::InvalidConfiguration(_)
        | InquireError::IO(_)
        | InquireError::Custom(_) => Failure::Failed(format!(
            "the terminal cannot be used: {error}; pass the answers as flags, with --yes"
        )),
    }
}

impl Args {
    /// Checks the flags. `folder`: that of the file to write.
    fn given(&self, folder: &Path) -> Result<Given, Failure> {
        let flag = |name: &'static str| move |problem: String| Failure::Usage(format!("{name}: {problem}"));
        let domains = match &self.domain[..] {
            [] => None,
            names => Some(answers::domains(&names.join(",")).map_err(flag("--domain"))?),
        };
        let listen = match &self.listen[..] {
            [] => None,
            addresses => Some(Listen::parse(&addresses.join(",")).map_err(flag("--listen"))?),
        };
        let email = self.email.as_deref();
        let certificate = match (self.certificate, &self.chain, &self.key) {
            (None, Some(chain), Some(key)) => {
                let (chain, key) = (seen_from(folder, chain)?, seen_from(folder, key)?);
                Some(Certificate::files(&chain, &key, folder).map_err(flag("--chain and --key"))?)
            }
            (Some(CertificateFlag::Development), ..) => Some(Certificate::Development),
            (Some(CertificateFlag::Acme), ..) => {
                Some(Certificate::acme(email.unwrap_or_default()).map_err(flag("--email"))?)
            }
            (Some(CertificateFlag::None), ..) => Some(Certificate::None),
            (None, ..) => None,
        };
        if email.is_some() && !matches!(certificate, Some(Certificate::Acme { .. })) {
            return Err(Failure::Usage(
                "--email belongs to `--certificate acme`: add it, or leave --email out".to_owned(),
            ));
        }
        let application = self.application.as_deref().map(answers::application);
        let tokens = self.tokens.as_deref().map(|text| Tokens::parse(text, folder));
        Ok(Given {
            domains,
            listen,
            certificate,
            application: application.transpose().map_err(flag("--application"))?,
            tokens: tokens.transpose().map_err(flag("--tokens"))?,
            jwt: self.given_jwt(folder)?,
        })
    }

    fn given_jwt(&self, folder: &Path) -> Result<Option<Jwt>, Failure> {
        let flag = |problem: String| Failure::Usage(format!("--jwt: {problem}"));
        let jwt = match (self.jwt.as_deref(), self.audience.as_deref()) {
            (Some(url), Some(audience)) if url.contains("://") => Some(Jwt::issuer(url, audience).map_err(flag)?),
            (Some(url), None) if url.contains("://") => {
                return Err(Failure::Usage(format!(
                    "--jwt {url} needs --audience NAME: what `aud` of the tokens for this API has"
                )));
            }
            (_, Some(_)) => {
                return Err(Failure::Usage(
                    "--audience belongs to `--jwt https://ISSUER`: add it, or leave --audience out".to_owned(),
                ));
            }
            (None, None) => None,
            (Some("none"), None) => Some(Jwt::None),
            (Some("new"), None) => Some(Jwt::NewKey),
            (Some(file), None) => {
                let file = seen_from(folder, Path::new(file))?;
                Some(Jwt::public_key(&file, folder).map_err(flag)?)
            }
        };
        Ok(jwt)
    }
}

impl Given {
    fn or_defaults(self) -> Result<Answers, Failure> {
        let domains = self.domains.unwrap_or_default();
        let certificate = self.certificate.unwrap_or(Certificate::Development);
        if matches!(certificate, Certificate::Acme { .. }) && domains.is_empty() {
            return Err(Failure::Usage(
                "`--certificate acme` needs the names of the certificates: add --domain NAME".to_owned(),
            ));
        }
        Ok(Answers {
            listen: self
                .listen
                .unwrap_or_else(|| Listen::usual(&domains, Some(&certificate))),
            domains,
            certificate,
            application: self
                .application
                .unwrap_or_else(|| answers::DEFAULT_APPLICATION.to_owned()),
            tokens: self
                .tokens
                .unwrap_or_else(|| Tokens::File(answers::DEFAULT_TOKENS_FILE.to_owned())),
            jwt: self.jwt.unwrap_or(Jwt::None),
        })
    }
}

/// The path of a file, as gateway.toml in this folder names it.
fn seen_from(folder: &Path, file: &Path) -> Result<String, Failure> {
    let path = if folder.as_os_str().is_empty() {
        file.to_owned()
    } else {
        std::path::absolute(file).map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?
    };
    let text = path.into_os_string().into_string();
    text.map_err(|path| Failure::Usage(format!("{} is not UTF-8; rename the file", path.display())))
}

/// Writes all files, or none. gateway.toml is the last, and is read as `authgate check` does before it is written.
fn write(answers: &Answers, output: &Path, folder: &Path) -> Result<Vec<NewFile>, Failure> {
    let secret_url = match &answers.tokens {
        Tokens::Redis(url) | Tokens::Django(url) if has_password(url) => Some(url.as_str()),
        Tokens::Redis(_) | Tokens::Django(_) | Tokens::File(_) | Tokens::None => None,
    };
    let files =
        files::make(answers, secret_url).map_err(|error| Failure::Failed(format!("cannot make keys: {error}")))?;
    let mut written = Written::default();
    written
        .create_all(folder, &files)
        .map_err(|(path, error)| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::Usage(format!(
                "{} exists and is not replaced. {}",
                path.display(),
                files::remedy(&path)
            )),
            _ => unwritable(&path, &error),
        })?;
    let text = render::gateway_toml(answers, secret_url.is_some());
    config::parse(&output.display().to_string(), &text, folder)?;
    let done = if output.exists() {
        files::replace(output, &text)
    } else {
        written.create(output, &text, false)
    };
    done.map_err(|error| unwritable(output, &error))?;
    written.keep();
    Ok(files)
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!(
        "cannot write {}: {error}; name a file in a folder that exists and can be written with --output FILE",
        path.display()
    ))
}

/// Whether a URL has a password, which belongs in a file that others cannot read.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, query) = (
        rest.split(['/', '?']).next().unwrap_or_default(),
        rest.split_once('?').map_or("", |(_, query)| query),
    );
    let login = authority.rsplit_once('@').map_or("", |(login, _)| login);
    login.contains(':') || query.split('&').any(|part| part.starts_with("password="))
}

/// Says what was written, and the next two commands.
fn report(answers: &Answers, files: &[NewFile], output: &Path) -> Result<(), Failure> {
    output::line(format_args!("Wrote {}.", output.display()))?;
    let folder = output.parent().unwrap_or(Path::new(""));
    for file in files {
        output::line(format_args!(
            "Wrote {}: {}.",
            folder.join(file.name).display(),
            file.purpose
        ))?;
    }
    let config = if output == Path::new(super::DEFAULT_FILE) {
        String::new()
    } else {
        format!(" --config {}", output.display())
    };
    let first = match &answers.tokens {
        Tokens::File(_) => "authgate token create --user 1 --username ada",
        Tokens::Redis(_) | Tokens::Django(_) => "authgate check --online",
        Tokens::None => "authgate check",
    };
    output::line(format_args!("\nNext:\n  {first}{config}\n  authgate run{config}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_passwords_are_recognized() {
        for (url, expected) in [
            ("redis://127.0.0.1:6379/0", false),
            ("redis://user@127.0.0.1:6379/0", false),
            ("redis://:pw@127.0.0.1:6379/0", true),
            ("postgres://user:p%40w@db/app", true),
            ("postgres://db/app?user=a&password=b", true),
            ("sqlite:/srv/a:b@c/db.sqlite3", false),
            ("unix:///run/redis.sock", false),
        ] {
            assert_eq!(has_password(url), expected, "{url}");
        }
    }
}
