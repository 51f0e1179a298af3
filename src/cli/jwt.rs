//! `authgate jwt`: mint a JWT for development, or explain one.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use super::{Failure, load};
use crate::auth::Now;
use crate::auth::jwt::keys::Algorithm;
use crate::auth::jwt::sign::SigningKey;
use crate::auth::jwt::{self, Settings};
use crate::config::Authenticator;
use crate::examples;
use crate::secret::Secret;

/// For development.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Sign a JWT; without --key, with the key of certs-example that the demo takes.
    Mint(Mint),
    /// Say what a JWT holds, and what the JWT authenticators of the configuration make of it. No store is asked.
    Inspect(Inspect),
}

#[derive(Debug, clap::Args)]
struct Mint {
    /// HS256 to HS512, RS256 to RS512, PS256 to PS512, ES256 to ES512, EdDSA.
    #[arg(long, default_value = "ES256", value_parser = algorithm)]
    algorithm: Algorithm,
    /// The private key, PEM (PKCS #8), or for HS* a file that is the secret.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The key id in the header.
    #[arg(long)]
    kid: Option<String>,
    /// The `user_id` claim, as in SimpleJWT.
    #[arg(long, value_name = "ID", default_value = "1")]
    user: String,
    /// A further claim, or another value for one; the value is JSON, else text. `NAME=` alone leaves the claim out. Repeatable.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Option<Value>)>,
    /// How long it is good for.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    expires_in: SignedDuration,
}

#[derive(Debug, clap::Args)]
struct Inspect {
    /// The token, or `-` for standard input.
    token: String,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, file: &Path) -> Result<(), Failure> {
    match &args.action {
        Action::Mint(args) => mint(args),
        Action::Inspect(args) => inspect(args, file),
    }
}

fn mint(args: &Mint) -> Result<(), Failure> {
    let key = match &args.key {
        Some(file) => std::fs::read(file).map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?,
        None => example_key(args.algorithm)?.to_vec(),
    };
    let key = SigningKey::new(args.algorithm, args.kid.clone(), &Secret::new(key));
    let key = key.map_err(|error| Failure::Usage(error.to_string()))?;
    let now = Now::read().unix_seconds();
    let mut claims = Map::new();
    for (name, value) in [
        ("token_type", json!("access")),
        ("user_id", json!(args.user)),
        ("jti", json!(format!("{:032x}", fastrand::u128(..)))),
        ("iat", json!(now)),
        ("exp", json!(now + args.expires_in.as_secs())),
    ] {
        claims.insert(name.to_owned(), value);
    }
    for (name, value) in &args.claims {
        match value {
            Some(value) => claims.insert(name.clone(), value.clone()),
            None => claims.remove(name),
        };
    }
    let token = key.sign(&claims).map_err(|error| Failure::Failed(error.to_string()))?;
    say(&token)
}

fn example_key(algorithm: Algorithm) -> Result<&'static [u8], Failure> {
    match algorithm {
        Algorithm::HS256 => Ok(examples::JWT_HS256_SECRET),
        Algorithm::RS256 => Ok(examples::JWT_RS256_KEY),
        Algorithm::ES256 => Ok(examples::JWT_ES256_KEY),
        Algorithm::EdDSA => Ok(examples::JWT_EDDSA_KEY),
        other => Err(Failure::Usage(format!(
            "certs-example has no key for {}; pass --key FILE",
            other.name()
        ))),
    }
}

fn inspect(args: &Inspect, file: &Path) -> Result<(), Failure> {
    let token = match args.token.as_str() {
        "-" => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::Failed(error.to_string()))?;
            text.trim_end().to_owned()
        }
        token => token.to_owned(),
    };
    let config = load(file)?.config;
    let header = token
        .split('.')
        .next()
        .and_then(|segment| URL_SAFE_NO_PAD.decode(segment).ok());
    let header: Option<Value> = header.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let told: Vec<Value> = config
        .authenticators
        .values()
        .filter_map(|authenticator| match authenticator {
            Authenticator::Jwt(settings) => Some(verdict(settings, &token)),
            Authenticator::Token(_) => None,
        })
        .collect();
    if args.json {
        return say(&format!("{:#}", json!({ "header": header, "authenticators": told })));
    }
    let mut text = match header {
        Some(header) => format!("header (not believed): {header}\n"),
        None => "header: not readable as base64url JSON\n".to_owned(),
    };
    for one in &told {
        let part = |name: &str| {
            one.get(name)
                .filter(|value| !value.is_null())
                .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        text += &format!(
            "authenticator {}: {}\n",
            part("authenticator").unwrap_or_default(),
            part("verdict").unwrap_or_default()
        );
        for name in ["key", "claims"] {
            if let Some(value) = part(name) {
                text += &format!("  {name}: {value}\n");
            }
        }
    }
    say(text.trim_end())
}

fn verdict(settings: &Settings, token: &str) -> Value {
    let explained = jwt::explain(settings, token.as_bytes(), Now::read());
    let verdict = match explained.verdict {
        Ok(()) => "good, as far as can be said without a store",
        Err(refusal) => refusal.label(),
    };
    json!({ "authenticator": &*settings.name, "verdict": verdict, "key": explained.key, "claims": explained.claims })
}

fn say(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{text}").map_err(|error| Failure::Failed(error.to_string()))
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    let all = || Algorithm::ALL.map(Algorithm::name).join(", ");
    Algorithm::from_name(name).ok_or_else(|| format!("write one of {}", all()))
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    text.parse()
        .map_err(|_| "write a duration such as 30s, 5m or 1h".to_owned())
}

fn claim(text: &str) -> Result<(String, Option<Value>), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let value = (!value.is_empty()).then(|| serde_json::from_str(value).unwrap_or_else(|_| json!(value)));
    Ok((name.to_owned(), value))
}
