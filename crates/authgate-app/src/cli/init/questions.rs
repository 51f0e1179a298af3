//! The dialogue. Each question is left out if a flag answers it, and asked again until the answer can be used.

use std::fmt;
use std::path::Path;

use inquire::error::CustomUserError;
use inquire::validator::Validation;
use inquire::{InquireError, Select, Text};

use super::Given;
use super::answers::{self, Answers, Certificate, Jwt, Listen, Tokens};

/// Asks what the flags do not say.
///
/// # Errors
/// The user ends the dialogue, or the terminal cannot be used.
pub(super) fn ask(given: Given, folder: &Path) -> Result<Answers, InquireError> {
    let mut domains = match given.domains {
        Some(domains) => domains,
        None => text(
            "1. Domain names that clients use",
            "",
            "Such as api.example.com. Leave it empty if only this machine connects.",
            answers::domains,
        )?,
    };
    let listen = match given.listen {
        Some(listen) => listen,
        None => text(
            "   Addresses to listen on",
            &Listen::usual(&domains, given.certificate.as_ref()).0.join(", "),
            "IP:PORT or unix:PATH; several are separated by commas.",
            Listen::parse,
        )?,
    };
    let certificate = match given.certificate {
        Some(certificate) => certificate,
        None => certificate(folder)?,
    };
    if matches!(certificate, Certificate::Acme { .. }) && domains.is_empty() {
        domains = text(
            "   Domain names for the certificates",
            "",
            "Such as api.example.com. The authority connects to port 443 of each.",
            |text| match answers::domains(text)? {
                domains if domains.is_empty() => Err("write at least one name".to_owned()),
                domains => Ok(domains),
            },
        )?;
    }
    let application = match given.application {
        Some(application) => application,
        None => text(
            "3. Where does the application listen?",
            answers::DEFAULT_APPLICATION,
            "http://HOST:PORT, https://HOST:PORT or unix:/PATH.",
            answers::application,
        )?,
    };
    let tokens = match given.tokens {
        Some(tokens) => tokens,
        None => tokens(folder)?,
    };
    let jwt = match given.jwt {
        Some(jwt) => jwt,
        None => jwt(folder, tokens == Tokens::None)?,
    };
    Ok(Answers {
        listen,
        domains,
        certificate,
        application,
        tokens,
        jwt,
    })
}

fn certificate(folder: &Path) -> Result<Certificate, InquireError> {
    let kinds = [
        (CertificateKind::Development, "make one now, for development"),
        (CertificateKind::Files, "files that I have"),
        (CertificateKind::Acme, "from Let's Encrypt, by ACME"),
        (CertificateKind::None, "none: a proxy terminates TLS"),
    ];
    match select("2. The certificate", &kinds)? {
        CertificateKind::Development => Ok(Certificate::Development),
        CertificateKind::None => Ok(Certificate::None),
        CertificateKind::Acme => text(
            "   E-mail address of the account",
            "",
            "Optional; the authority may write to it.",
            Certificate::acme,
        ),
        CertificateKind::Files => {
            let chain = text(
                "   The certificate and its chain, PEM",
                "",
                "The certificate of the gateway comes first in the file.",
                {
                    let folder = folder.to_owned();
                    move |name| readable(&folder, name)
                },
            )?;
            let folder = folder.to_owned();
            text(
                "   Its private key, PEM",
                "",
                "It must fit the certificate.",
                move |key| Certificate::files(&chain, key.trim(), &folder),
            )
        }
    }
}

#[derive(Clone, Copy)]
enum CertificateKind {
    Development,
    Files,
    Acme,
    None,
}

fn readable(folder: &Path, name: &str) -> Result<String, String> {
    let name = name.trim();
    match authgate_dataplane::file::read(&folder.join(name)) {
        Ok(_) => Ok(name.to_owned()),
        Err(error) => Err(format!("{name} cannot be read: {error}")),
    }
}

#[derive(Clone, Copy)]
enum TokensKind {
    File,
    Redis,
    Django,
    None,
}

fn tokens(folder: &Path) -> Result<Tokens, InquireError> {
    let kinds = [
        (TokensKind::File, "in a file, for one gateway"),
        (TokensKind::Redis, "in Redis, for many gateways"),
        (TokensKind::Django, "in the database of a Django application"),
        (TokensKind::None, "there are none"),
    ];
    let folder = folder.to_owned();
    let parse = move |text: &str| Tokens::parse(text, &folder);
    match select("4. Where are opaque tokens and their users?", &kinds)? {
        TokensKind::File => Ok(Tokens::File(answers::DEFAULT_TOKENS_FILE.to_owned())),
        TokensKind::Redis => text(
            "   The URL of Redis",
            "redis://127.0.0.1:6379/0",
            "redis://, rediss:// for TLS, or unix://PATH.",
            parse,
        ),
        TokensKind::Django => text(
            "   The URL of the database",
            "postgres://authgate@127.0.0.1/app",
            "postgres://, mysql:// or sqlite:PATH. It is only read.",
            parse,
        ),
        TokensKind::None => Ok(Tokens::None),
    }
}

#[derive(Clone, Copy)]
enum JwtKind {
    None,
    New,
    File,
    Issuer,
}

/// `required`: there are no tokens.
fn jwt(folder: &Path, required: bool) -> Result<Jwt, InquireError> {
    let mut kinds = vec![
        (JwtKind::None, "none"),
        (JwtKind::New, "signed by the application with a key that is made now"),
        (JwtKind::File, "signed by a key whose public half is in a file"),
        (JwtKind::Issuer, "of an identity provider: Keycloak, Auth0, Entra, …"),
    ];
    if required {
        kinds.remove(0);
    }
    match select("5. Which JWTs are accepted?", &kinds)? {
        JwtKind::None => Ok(Jwt::None),
        JwtKind::New => Ok(Jwt::NewKey),
        JwtKind::File => {
            let folder = folder.to_owned();
            text(
                "   The public key, PEM",
                "",
                "The algorithm is that of the key.",
                move |name| Jwt::public_key(name.trim(), &folder),
            )
        }
        JwtKind::Issuer => {
            let url = text(
                "   The issuer",
                "",
                "Its URL, exactly as `iss` of its tokens has it.",
                |url| Jwt::issuer(url, "any").map(|_| url.trim().to_owned()),
            )?;
            text(
                "   The audience",
                "",
                "What `aud` of the tokens for this API has.",
                move |audience| Jwt::issuer(&url, audience),
            )
        }
    }
}

/// A line of text, asked for until `parse` accepts it.
fn text<T>(
    question: &str,
    default: &str,
    help: &str,
    parse: impl Fn(&str) -> Result<T, String> + Clone + 'static,
) -> Result<T, InquireError> {
    let validator = {
        let parse = parse.clone();
        move |text: &str| -> Result<Validation, CustomUserError> {
            Ok(match parse(text) {
                Ok(_) => Validation::Valid,
                Err(problem) => Validation::Invalid(problem.into()),
            })
        }
    };
    let mut prompt = Text::new(question).with_help_message(help).with_validator(validator);
    if !default.is_empty() {
        prompt = prompt.with_default(default);
    }
    let answer = prompt.prompt()?;
    parse(&answer).map_err(InquireError::InvalidConfiguration)
}

/// One of several choices. The first is the default.
fn select<K: Copy>(question: &str, kinds: &[(K, &'static str)]) -> Result<K, InquireError> {
    let choices = kinds.iter().map(|(kind, text)| Choice { kind: *kind, text }).collect();
    let chosen = Select::new(question, choices).without_filtering().prompt()?;
    Ok(chosen.kind)
}

struct Choice<K> {
    kind: K,
    text: &'static str,
}

impl<K> fmt::Display for Choice<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}
