//! `authgate token create`: the only command that prints a key.

use authgate_auth::record::{TokenRecord, UserRecord};
use authgate_auth::store::TokenDigest;
use authgate_core::identity::{Text, UserId};
use authgate_core::secret::Secret;
use serde_json::Value;

use super::{find, with_digest};
use crate::cli::stores::StoreName;
use crate::cli::values::{self, Key, digest_text, time_text};
use crate::cli::{Failure, StoreContext, output};
use crate::provisioning::{NameClash, WritableStore, random_hex};

/// Create a token for a user and print its key (shown only once)
///
/// The key is 40 hexadecimal digits, as in Django REST Framework. Standard output is the key and nothing else. With --key, the command
/// can be repeated: it succeeds if the token already exists with the same properties.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The user of the token, who must be in the store unless --username is given
    #[arg(long, value_name = "ID", value_parser = values::user_id)]
    user: UserId,
    /// If the user does not exist, create an active user with this username
    #[arg(long, value_name = "NAME", value_parser = values::text)]
    username: Option<Text>,
    /// Use this key instead of a random one: the key, `-` for standard input, or sha256:DIGEST
    #[arg(long)]
    key: Option<Key>,
    /// A scope of the token; repeatable
    #[arg(long = "scope", value_name = "SCOPE", value_parser = values::text)]
    scopes: Vec<Text>,
    /// When the token expires: Unix seconds, or a time like 2026-11-23T10:00:00Z [default: never]
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    expires: Option<i64>,
    /// A name to show in lists
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    #[command(flatten)]
    store: StoreName,
    /// Print JSON: the key, its digest, and the stored record
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  KEY=$(authgate token create --user 42)
  authgate token create --user ci --username ci --scope orders:read --name 'nightly build'
  authgate token create --user 42 --key - <key.txt";

pub(super) fn run(args: &Args, context: &StoreContext<'_>) -> Result<(), Failure> {
    let now = values::now();
    if let Some(expires) = args.expires.filter(|expires| *expires <= now) {
        return Err(Failure::Usage(format!(
            "--expires {} is in the past",
            time_text(expires)
        )));
    }
    let key = match &args.key {
        Some(key) => key.read()?,
        None => Key::Plain(Secret::new(random_hex::<20>()?)),
    };
    check_key(&key)?;
    let digests = args.store.key_digests(&key, context)?;
    let digest = digests[0];
    // Without --username the user must already exist, so an empty store is an error and is not initialized.
    let mut store = match args.username {
        Some(_) => args.store.open_to_write(context)?,
        None => args.store.open(context)?,
    };
    if let Some((digest, token)) = find(&digests, &mut store)? {
        return already_exists(args, &key, &digest, &token);
    }
    ensure_user(args, &mut store)?;
    let token = TokenRecord {
        user: args.user.clone(),
        created: Some(creation_time(store.user_revoked(&args.user)?, now)),
        expires: args.expires,
        scopes: args.scopes.clone(),
        name: args.name.clone(),
        revoked: None,
    };
    if !store.put_token(&digest, &token)? {
        // Another command has created the token in the meantime.
        let stored = store.find_token(&digest)?.unwrap_or(token);
        return already_exists(args, &key, &digest, &stored);
    }
    print(&key, &digest, &token, args.json)
}

/// Succeeds if the existing token has the requested properties; otherwise fails and changes nothing.
fn already_exists(args: &Args, key: &Key, digest: &TokenDigest, token: &TokenRecord) -> Result<(), Failure> {
    let differs = difference(args, token);
    let name = digest_text(digest);
    if differs.is_empty() {
        output::note(format_args!("token {name} already exists with these properties"));
        return print(key, digest, token, args.json);
    }
    Err(Failure::Failed(format!(
        "token {name} already exists and {}; nothing was changed. See `authgate token show`",
        differs.join(", ")
    )))
}

/// The properties that differ from the requested ones.
fn difference(args: &Args, token: &TokenRecord) -> Vec<&'static str> {
    let checks = [
        (token.revoked.is_some(), "is revoked"),
        (token.user != args.user, "belongs to another user"),
        (token.scopes != args.scopes, "has other scopes"),
        (token.expires != args.expires, "has another expiry"),
        (token.name != args.name, "has another name"),
    ];
    checks
        .into_iter()
        .filter_map(|(differs, what)| differs.then_some(what))
        .collect()
}

/// Refuses a key that cannot be sent in a header.
fn check_key(key: &Key) -> Result<(), Failure> {
    match key {
        Key::Plain(key) if key.expose().chars().any(|c| c.is_ascii_whitespace() || c.is_control()) => Err(
            Failure::Usage("the key has spaces or control characters, so it cannot be sent in a header".to_owned()),
        ),
        Key::Plain(_) | Key::Digest(_) | Key::Input => Ok(()),
    }
}

/// The creation time. It is after the user's revocation, because that covers tokens created in the same second.
fn creation_time(user_revoked: Option<i64>, now: i64) -> i64 {
    user_revoked.map_or(now, |by| now.max(by.saturating_add(1)))
}

fn ensure_user(args: &Args, store: &mut WritableStore) -> Result<(), Failure> {
    let id = args.user.as_str();
    match (store.find_user(&args.user)?, &args.username) {
        (None, None) => Err(Failure::Failed(format!(
            "there is no user {id} in this store; create it with `authgate user put --id {id} --username NAME`, or pass --username NAME"
        ))),
        (None, Some(username)) => {
            let user = UserRecord {
                id: args.user.clone(),
                username: Some(username.clone()),
                email: None,
                groups: Vec::new(),
                active: true,
                password_md5: None,
                attributes: serde_json::Map::new(),
            };
            store.put_user(&user, NameClash::Refuse)?;
            output::note(format_args!("created user {id} ({username})"));
            Ok(())
        }
        (Some(user), Some(username)) if user.username.as_ref() != Some(username) => {
            let stored = user
                .username
                .as_ref()
                .map_or_else(|| "no username".to_owned(), |name| format!("username {name}"));
            Err(Failure::Failed(format!(
                "user {id} has {stored}, not {username}; nothing was changed"
            )))
        }
        (Some(user), _) => {
            if !user.active {
                output::note(format_args!(
                    "user {id} is disabled: gateways refuse the token until `authgate user enable {id}`"
                ));
            }
            Ok(())
        }
    }
}

fn print(key: &Key, digest: &TokenDigest, token: &TokenRecord, json: bool) -> Result<(), Failure> {
    let plain = match key {
        Key::Plain(key) => Some(key.expose().as_str()),
        Key::Digest(_) | Key::Input => None,
    };
    if !json {
        return output::line(format_args!("{}", plain.unwrap_or(&digest_text(digest))));
    }
    let mut value = with_digest(digest, token);
    if let (Value::Object(members), Some(key)) = (&mut value, plain) {
        members.insert("key".to_owned(), key.into());
    }
    output::json(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_cannot_be_sent_in_a_header_is_refused() {
        for (key, valid) in [
            ("canary", true),
            ("canary,=\u{eb}", true),
            ("a b", false),
            ("a\tb", false),
            ("a\nb", false),
        ] {
            assert_eq!(check_key(&key.parse().expect("a key")).is_ok(), valid, "{key:?}");
        }
    }

    #[test]
    fn a_token_is_created_after_the_revocation_of_its_user() {
        assert_eq!(
            [
                creation_time(None, 10),
                creation_time(Some(9), 10),
                creation_time(Some(10), 10),
                creation_time(Some(12), 10)
            ],
            [10, 10, 11, 13]
        );
    }
}
