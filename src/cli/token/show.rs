//! `authgate token show`: what is stored, and what a gateway makes of it.

use std::io::{self, Write};

use serde_json::json;

use super::{unknown, with_digest};
use crate::auth::store::admin::Admin;
use crate::auth::store::{TokenDigest, TokenFacts};
use crate::cli::values::{self, Key, digest_text, time_text};
use crate::cli::{Failure, output};
use crate::identity::Text;

pub(super) fn run(key: &Key, store: &mut Admin, json: bool) -> Result<(), Failure> {
    let digest = key.digest()?;
    let token = store.find_token(&digest)?.ok_or_else(|| unknown(&digest))?;
    let (user, user_revoked) = (store.find_user(&token.user)?, store.user_revoked(&token.user)?);
    let facts = TokenFacts {
        token,
        user,
        user_revoked,
    };
    let refused = refused(&facts, values::now());
    if json {
        let mut value = with_digest(&digest, &facts.token);
        value["user_record"] = json!(facts.user);
        value["user_revoked"] = json!(facts.user_revoked);
        value["accepted"] = json!(refused.is_none());
        value["reason"] = json!(refused);
        return output::json(&value);
    }
    output::data(|out| print(out, &digest, &facts, refused.as_deref()))
}

/// Why the token would be refused, by the rules of the request path (`auth/token.rs`); `None`: it would be accepted.
fn refused(facts: &TokenFacts, now: i64) -> Option<String> {
    let TokenFacts {
        token,
        user,
        user_revoked,
    } = facts;
    if let Some(at) = token.revoked {
        return Some(format!("it was revoked at {}", time_text(at)));
    }
    if let Some(at) = token.expires.filter(|at| *at <= now) {
        return Some(format!("it expired at {}", time_text(at)));
    }
    let id = token.user.as_str();
    if let Some(by) = user_revoked.filter(|by| token.created.is_none_or(|created| created <= *by)) {
        return Some(format!(
            "all that was issued to user {id} by {} is revoked",
            time_text(by)
        ));
    }
    match user {
        None => Some(format!("there is no user {id} in this store")),
        Some(user) if !user.active => Some(format!("user {id} is not active")),
        Some(_) => None,
    }
}

fn print(out: &mut dyn Write, digest: &TokenDigest, facts: &TokenFacts, refused: Option<&str>) -> io::Result<()> {
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
        token.created.map_or_else(|| "not known".to_owned(), time_text)
    )?;
    writeln!(
        out,
        "expires  {}",
        token.expires.map_or_else(|| "never".to_owned(), time_text)
    )?;
    match refused {
        None => writeln!(out, "accepted"),
        Some(reason) => writeln!(out, "refused  {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::record;

    #[test]
    fn the_first_reason_to_refuse_is_told() {
        let check = |token: &str, user: Option<&str>, user_revoked, expected: Option<&str>| {
            let token = record::parse("a token", token.as_bytes()).expect("a token");
            let user = user.map(|user| record::parse("a user", user.as_bytes()).expect("a user"));
            let refused = refused(
                &TokenFacts {
                    token,
                    user,
                    user_revoked,
                },
                100,
            );
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
        check(r#"{"user":"1"}"#, idle, None, Some("not active"));
        check(r#"{"user":"1"}"#, None, None, Some("no user 1"));
    }
}
