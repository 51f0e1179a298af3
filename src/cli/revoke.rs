//! `authgate revoke`: marks in a store that something issued is no longer good.

use super::stores::StoreName;
use super::values::{self, Key, time_text};
use super::{Failure, StoreContext, output, token};
use crate::auth::store::admin::Revocation;
use crate::identity::UserId;

/// A clock may be ahead of ours by that much; beyond it the year was probably mistyped, and no mark is ever taken back.
const AHEAD: i64 = 3600;
/// A revoked JWT is remembered that much longer than it lives.
const MARGIN: i64 = 60;

/// Revoke what was issued to a user, one JWT, one opaque token, or everything that one key has signed
///
/// Opaque tokens always obey. JWTs obey where their authenticator has `revocation` set to the store. Gateways refuse what is revoked
/// within a second; with `invalidation = "off"`, or while a gateway has lost its invalidation connection, it takes up to `cache.ttl`
/// (60s by default). WebSockets and streams that are open go on until they end. A revocation cannot be undone, only widened.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[group(id = "what", required = true, multiple = false, args = ["user", "jti", "token", "kid"])]
pub struct Args {
    /// Everything that was issued to this user by now, or by --before: JWTs by their `iat`, opaque tokens by when they were made.
    /// It does not end what can still be issued: see `authgate user disable`
    #[arg(long, value_name = "ID", value_parser = values::user_id)]
    user: Option<UserId>,
    /// For --user: Unix seconds, or a time like 2026-11-23T10:00:00Z; what was issued later stays good [default: now]
    #[arg(long, value_name = "TIME", value_parser = values::time, requires = "user", conflicts_with_all = ["jti", "token", "kid"])]
    before: Option<i64>,
    /// The JWT of this id
    #[arg(long, value_name = "ID", value_parser = values::some_id)]
    jti: Option<String>,
    /// For --jti: when the JWT ends by itself (its `exp`), after which it need not be remembered [default: remembered for ever]
    #[arg(long, value_name = "TIME", value_parser = values::time, requires = "jti", conflicts_with_all = ["user", "token", "kid"])]
    expires: Option<i64>,
    /// One opaque token: the key, `-` to read it from standard input, or sha256:DIGEST
    #[arg(long, value_name = "KEY")]
    token: Option<Key>,
    /// All JWTs that this key verifies: its `kid` in the configuration or key set, or its RFC 7638 thumbprint where it has none
    #[arg(long, value_name = "KID", value_parser = values::some_id)]
    kid: Option<String>,
    #[command(flatten)]
    store: StoreName,
}

const EXAMPLES: &str = "\
Examples:
  authgate revoke --user 42
  authgate revoke --user 42 --before 2026-11-23T10:00:00Z
  authgate revoke --jti 3f2a9c --expires 1795000000
  authgate revoke --token - <key.txt
  authgate revoke --kid 2026-06";

/// Runs `authgate revoke`.
///
/// # Errors
/// It was called wrongly, or could not do its work.
pub fn run(args: &Args, context: &StoreContext<'_>) -> Result<(), Failure> {
    if let Some(key) = &args.token {
        return token::revoke(key, &mut args.store.open(context)?);
    }
    let now = values::now();
    let leeway = i64::try_from(context.largest_leeway.as_secs())
        .unwrap_or(i64::MAX)
        .saturating_add(1);
    let revocation = revocation(args, now, leeway)?;
    if let Revocation::Jti {
        jti,
        forget: Some(forget),
    } = &revocation
        && *forget <= now
    {
        return output::line(format_args!(
            "JWT {jti} has ended by itself; there is nothing to revoke"
        ));
    }
    let mut store = args.store.open_to_write(context)?;
    store.revoke(&revocation, now)?;
    match revocation {
        Revocation::User { id, before } => {
            // An earlier revocation may reach further.
            let by = time_text(store.user_revoked(&id)?.unwrap_or(before));
            let id = id.as_str();
            output::line(format_args!("what was issued to user {id} by {by} is revoked"))?;
            output::note(format_args!(
                "this ends what was issued, not what can be issued. Whoever can log in, or still has a refresh token that Django \
                 accepts, can get new tokens: `authgate user disable {id}` keeps them out of this gateway, and SimpleJWT's token \
                 blacklist (rest_framework_simplejwt.token_blacklist) ends their refresh tokens in Django"
            ));
            Ok(())
        }
        Revocation::Jti { jti, .. } => output::line(format_args!("JWT {jti} is revoked")),
        Revocation::Kid { kid } => output::line(format_args!("what key {kid} has signed is revoked")),
    }
}

fn revocation(args: &Args, now: i64, leeway: i64) -> Result<Revocation, Failure> {
    if let Some(id) = &args.user {
        let before = args.before.unwrap_or(now);
        if before > now + AHEAD {
            let problem = format!(
                "--before {} is yet to come: nothing has been issued by then",
                time_text(before)
            );
            return Err(Failure::Usage(problem));
        }
        return Ok(Revocation::User { id: id.clone(), before });
    }
    match (&args.jti, &args.kid) {
        (Some(jti), _) => {
            let forget = args
                .expires
                .map(|expires| expires.saturating_add(leeway).saturating_add(MARGIN));
            Ok(Revocation::Jti {
                jti: jti.clone(),
                forget,
            })
        }
        (None, Some(kid)) => Ok(Revocation::Kid { kid: kid.clone() }),
        (None, None) => Err(Failure::Usage(
            "one of --user, --jti, --token and --kid is needed".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Whole {
        #[command(flatten)]
        args: Args,
    }

    fn read(words: &str) -> Option<Args> {
        Whole::try_parse_from(std::iter::once("revoke").chain(words.split(' ')))
            .ok()
            .map(|whole| whole.args)
    }

    #[test]
    fn the_arguments_are_in_order() {
        Whole::command().debug_assert();
    }

    #[test]
    fn one_thing_is_revoked_at_a_time() {
        let good = [
            "--user 42",
            "--user 42 --before 1",
            "--jti x",
            "--jti x --expires 1",
            "--token k",
            "--token -",
            "--kid k --store a",
        ];
        for words in good {
            assert!(read(words).is_some(), "{words}");
        }
        let bad = [
            "",
            "--user 42 --jti x",
            "--before 1",
            "--jti x --before 1",
            "--expires 1",
            "--kid k --expires 1",
            "--jti=",
        ];
        for words in bad {
            assert!(read(words).is_none(), "{words}");
        }
    }

    #[test]
    fn a_jwt_is_remembered_until_nobody_accepts_it() {
        let revoke = |words: &str| revocation(&read(words).expect(words), 1000, 5).ok();
        let jti = |forget| {
            Some(Revocation::Jti {
                jti: "x".to_owned(),
                forget,
            })
        };
        assert_eq!(revoke("--jti x --expires 2000"), jti(Some(2065)));
        assert_eq!(revoke("--jti x"), jti(None));
        let user = |before| UserId::new("42").ok().map(|id| Revocation::User { id, before });
        assert_eq!(revoke("--user 42"), user(1000));
        assert_eq!(revoke("--user 42 --before 7"), user(7));
        assert_eq!(revoke("--user 42 --before 9999"), None);
    }
}
