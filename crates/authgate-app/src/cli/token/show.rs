//! `authgate token show`: shows the stored record of a token and the result of each check.

use std::io::{self, Write};
use std::path::Path;

use authgate_auth::store::{TokenDigest, TokenFacts, TokenFault};
use authgate_core::identity::Text;
use serde_json::{Value, json};

use super::{find, unknown, with_digest};
use crate::app::dry_run::Credential;
use crate::cli::explain::{self, RouteArgs};
use crate::cli::stores::StoreName;
use crate::cli::values::{self, Key, digest_text, time_text};
use crate::cli::{Failure, StoreContext, output};

/// Show the stored record of a token and whether it is accepted now, check by check
///
/// This command reads the store. Gateways apply changes of the store within a second. With `invalidation = "off"`, or while a gateway
/// has lost its invalidation connection, this takes up to `cache.ttl` (60s by default).
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The key, `-` to read the key from standard input, sha256:DIGEST or sha512:DIGEST
    key: Key,
    #[command(flatten)]
    store: StoreName,
    #[command(flatten)]
    route: RouteArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &StoreContext<'_>, file: &Path) -> Result<(), Failure> {
    let key = args.key.read()?;
    let digests = args.store.key_digests(&key, context)?;
    let explained = match (&key, args.route.has_route()) {
        (_, false) => None,
        (Key::Plain(key), true) => explain::explain(file, Credential::Token(key), &args.route)?.request,
        (Key::Digest(_) | Key::Input, true) => {
            let problem = "--route needs the key itself: a digest is not a credential";
            return Err(Failure::Usage(problem.to_owned()));
        }
    };
    let mut store = args.store.open(context)?;
    let Some((digest, token)) = find(&digests, &mut store)? else {
        // The response for an unknown key is shown too.
        return match explained {
            None => Err(unknown(&digests)),
            Some(explained) if args.json => output::json(
                &json!({ "digest": digest_text(&digests[0]), "known": false, "request": explain::json(&explained) }),
            ),
            Some(explained) => output::line(format_args!(
                "token    {}\nnot in this store\n\n{}",
                digest_text(&digests[0]),
                explain::text(&args.route, &explained).trim_end()
            )),
        };
    };
    let (user, user_revoked) = (store.find_user(&token.user)?, store.user_revoked(&token.user)?);
    let facts = TokenFacts {
        token,
        user,
        user_revoked,
        digest: None,
    };
    let failed = failed_check(&facts, values::now());
    if args.json {
        let mut value = with_digest(&digest, &facts.token);
        value["user_record"] = json!(facts.user);
        if let Some(record) = value["user_record"].as_object_mut() {
            // Derived from the user's password hash: do not print it.
            record.remove("password_md5");
        }
        value["user_revoked"] = json!(facts.user_revoked);
        value["accepted"] = json!(failed.is_none());
        value["reason"] = json!(failed.as_ref().map(|(_, reason)| reason));
        let checks = CHECKS.iter().enumerate();
        value["checks"] = checks
            .map(|(at, asks)| json!({ "asks": asks, "state": state(at, failed.as_ref()) }))
            .collect::<Vec<Value>>()
            .into();
        if let Some(explained) = &explained {
            value["request"] = explain::json(explained);
        }
        return output::json(&value);
    }
    output::data(|out| {
        print(out, &digest, &facts, failed.as_ref())?;
        match &explained {
            None => Ok(()),
            Some(explained) => write!(out, "\n{}", explain::text(&args.route, explained)),
        }
    })
}

/// The checks of a stored token, in order.
const CHECKS: [&str; 5] = [
    "the token is not revoked",
    "the token has not expired",
    "the token is newer than the revocation of its user",
    "the user exists",
    "the user is active",
];

/// The index in [`CHECKS`] of the failed check, and the reason.
fn failed_check(facts: &TokenFacts, now: i64) -> Option<(usize, String)> {
    let id = facts.token.user.as_str();
    Some(match facts.fault(now)? {
        TokenFault::Revoked(at) => (0, format!("the token was revoked at {}", time_text(at))),
        TokenFault::Expired(at) => (1, format!("the token expired at {}", time_text(at))),
        TokenFault::UserRevoked(up_to) => (
            2,
            format!(
                "all credentials issued to user {id} up to {} are revoked",
                time_text(up_to)
            ),
        ),
        TokenFault::NoUser => (3, format!("there is no user {id} in this store")),
        TokenFault::UserInactive => (4, format!("user {id} is disabled")),
    })
}

fn state(check: usize, failed: Option<&(usize, String)>) -> &'static str {
    match failed {
        Some((at, _)) if check == *at => "failed",
        Some((at, _)) if check > *at => "not reached",
        _ => "passed",
    }
}

fn print(
    out: &mut dyn Write,
    digest: &TokenDigest,
    facts: &TokenFacts,
    failed: Option<&(usize, String)>,
) -> io::Result<()> {
    let TokenFacts { token, user, .. } = facts;
    let username = user.as_ref().and_then(|user| user.username.as_ref());
    let username = username.map(|name| format!(" ({name})")).unwrap_or_default();
    writeln!(out, "token    {}", digest_text(digest))?;
    writeln!(out, "user     {}{username}", token.user.as_str())?;
    if let Some(name) = &token.name {
        writeln!(out, "name     {name:?}")?;
    }
    if !token.scopes.is_empty() {
        let scopes: Vec<_> = token.scopes.iter().map(Text::as_str).collect();
        writeln!(out, "scopes   {}", scopes.join(" "))?;
    }
    writeln!(
        out,
        "created  {}",
        token.created.map_or_else(|| "unknown".to_owned(), time_text)
    )?;
    writeln!(
        out,
        "expires  {}",
        token.expires.map_or_else(|| "never".to_owned(), time_text)
    )?;
    match failed {
        None => writeln!(out, "accepted")?,
        Some((_, reason)) => writeln!(out, "refused  {reason}")?,
    }
    for (at, asks) in CHECKS.iter().enumerate() {
        writeln!(out, "  {:<11}  {asks}", state(at, failed))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use authgate_auth::record;

    #[test]
    fn the_first_failed_check_gives_the_reason() {
        let check = |token: &str, user: Option<&str>, user_revoked, expected: Option<&str>| {
            let token = record::parse("a token", token.as_bytes()).expect("a token");
            let user = user.map(|user| record::parse("a user", user.as_bytes()).expect("a user"));
            let facts = TokenFacts {
                token,
                user,
                user_revoked,
                digest: None,
            };
            let refused = failed_check(&facts, 100).map(|(_, reason)| reason);
            match expected {
                None => assert_eq!(refused, None),
                Some(part) => assert!(
                    refused.as_deref().is_some_and(|text| text.contains(part)),
                    "{refused:?}, not {part}"
                ),
            }
        };
        let (ada, idle) = (
            Some(r#"{"id":"1","active":true}"#),
            Some(r#"{"id":"1","active":false}"#),
        );
        check(r#"{"user":"1"}"#, ada, None, None);
        check(r#"{"user":"1","expires":101,"created":51}"#, ada, Some(50), None);
        check(r#"{"user":"1","expires":100}"#, ada, None, Some("expired"));
        check(
            r#"{"user":"1","revoked":1,"expires":1}"#,
            ada,
            None,
            Some("was revoked"),
        );
        check(r#"{"user":"1","created":50}"#, ada, Some(50), Some("issued to user 1"));
        check(r#"{"user":"1"}"#, ada, Some(50), Some("issued to user 1"));
        check(r#"{"user":"1"}"#, idle, None, Some("is disabled"));
        check(r#"{"user":"1"}"#, None, None, Some("no user 1"));
    }
}
