//! `authgate jwt mint`: signs a JWT for development.

use std::path::PathBuf;

use authgate_auth::Now;
use authgate_auth::jwt::keys::Algorithm;
use authgate_auth::jwt::sign::SigningKey;
use authgate_core::secret::Secret;
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use crate::cli::{Failure, output};
use crate::examples;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The algorithm: HS256 to HS512, RS256 to RS512, PS256 to PS512, ES256 to ES512, or EdDSA.
    #[arg(long, default_value = "ES256", value_parser = algorithm)]
    algorithm: Algorithm,
    /// The private key as PEM (PKCS #8), or for HS* the file with the secret.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The key id (`kid`) in the header.
    #[arg(long)]
    kid: Option<String>,
    /// The type (`typ`) in the header; `profile = "rfc9068"` requires at+jwt.
    #[arg(long, default_value = "JWT")]
    typ: String,
    /// The `user_id` claim, as in SimpleJWT.
    #[arg(long, value_name = "ID", default_value = "1")]
    user: String,
    /// Add or replace a claim; the value is JSON if it parses, otherwise text. `NAME=` removes the claim. Repeatable.
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Option<Value>)>,
    /// The lifetime of the token; -1m makes a token that expired a minute ago.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration, allow_hyphen_values = true)]
    expires_in: SignedDuration,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
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
    let token = key
        .sign_as(&args.typ, &claims)
        .map_err(|error| Failure::Failed(error.to_string()))?;
    output::line(format_args!("{token}"))
}

fn example_key(algorithm: Algorithm) -> Result<&'static [u8], Failure> {
    match algorithm {
        Algorithm::HS256 => Ok(examples::JWT_HS256_SECRET),
        Algorithm::RS256 => Ok(examples::JWT_RS256_KEY),
        Algorithm::ES256 => Ok(examples::JWT_ES256_KEY),
        Algorithm::EdDSA => Ok(examples::JWT_EDDSA_KEY),
        other => Err(Failure::Usage(format!(
            "there is no example key for {}; pass --key FILE",
            other.name()
        ))),
    }
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    let all = || Algorithm::ALL.map(Algorithm::name).join(", ");
    Algorithm::from_name(name).ok_or_else(|| format!("expected one of {}", all()))
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    text.parse()
        .map_err(|_| "expected a duration such as 30s, 5m or 1h".to_owned())
}

fn claim(text: &str) -> Result<(String, Option<Value>), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = (!value.is_empty()).then(|| serde_json::from_str(value).unwrap_or_else(|_| json!(value)));
    Ok((name.to_owned(), value))
}
