//! `authgate revoke`: writes a revocation to a store.

use authgate_core::identity::UserId;

use super::stores::StoreName;
use super::values::{self, Key, time_text};
use super::{Failure, StoreContext, output, token};
use crate::provisioning::Revocation;

/// How far `--before` may be in the future, for clock skew. Later times are refused as typing errors: a revocation cannot be undone.
const MAX_AHEAD: i64 = 3600;
/// A revocation of a JWT is kept this many seconds after the JWT has expired.
const MARGIN: i64 = 60;

/// Revoke all credentials of a user, one JWT, one opaque token, or all JWTs that one key has signed
///
/// Opaque tokens are always checked for revocation; JWTs only if their authenticator has `revocation` set to the store. Gateways refuse
/// revoked credentials within a second. With `invalidation = "off"`, or while a gateway has lost its invalidation connection, this
/// takes up to `cache.ttl` (60s by default). Open WebSockets and streams continue until they end. A revocation cannot be undone.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[group(id = "what", required = true, multiple = false, args = ["user", "jti", "token", "kid"])]
pub struct Args {
    /// All credentials issued to this user up to now, or up to --before: JWTs by `iat`, opaque tokens by creation time.
    /// Later credentials stay valid: see `authgate user disable`
    #[arg(long, value_name = "ID", value_parser = values::user_id)]
    user: Option<UserId>,
    /// With --user: revoke credentials issued up to this time: Unix seconds, or a time like 2026-11-23T10:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = values::time, requires = "user", conflicts_with_all = ["jti", "token", "kid"])]
    before: Option<i64>,
    /// The JWT with this `jti`
    #[arg(long, value_name = "ID", value_parser = values::non_empty_id)]
    jti: Option<String>,
    /// With --jti: when the JWT expires (its `exp`). The store deletes the revocation after that; without this option it keeps the revocation
    #[arg(long, value_name = "TIME", value_parser = values::time, requires = "jti", conflicts_with_all = ["user", "token", "kid"])]
    expires: Option<i64>,
    /// One opaque token: its key, `-` to read the key from standard input, or sha256:DIGEST
    #[arg(long, value_name = "KEY")]
    token: Option<Key>,
    /// All JWTs that this key verifies: its `kid` in the configuration or key set, or its RFC 7638 thumbprint if it has none
    #[arg(long, value_name = "KID", value_parser = values::non_empty_id)]
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
/// Wrong arguments, or a failure of the store.
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
            "JWT {jti} has already expired; there is nothing to revoke"
        ));
    }
    let mut store = args.store.open_to_write(context)?;
    store.revoke(&revocation, now)?;
    match revocation {
        Revocation::User { id, before } => {
            // An earlier revocation may cover a later time.
            let by = time_text(store.user_revoked(&id)?.unwrap_or(before));
            let id = id.as_str();
            output::line(format_args!("revoked all credentials issued to user {id} up to {by}"))?;
            output::note(format_args!(
                "the user can still get new credentials by logging in to Django or with a refresh token. To refuse the user at this \
                 gateway, run `authgate user disable {id}`. To end refresh tokens in Django, use SimpleJWT's token blacklist \
                 (rest_framework_simplejwt.token_blacklist)"
            ));
            Ok(())
        }
        Revocation::Jti { jti, .. } => output::line(format_args!("revoked JWT {jti}")),
        Revocation::Kid { kid } => output::line(format_args!("revoked all JWTs signed by key {kid}")),
    }
}

fn revocation(args: &Args, now: i64, leeway: i64) -> Result<Revocation, Failure> {
    if let Some(id) = &args.user {
        let before = args.before.unwrap_or(now);
        if before > now + MAX_AHEAD {
            let problem = format!(
                "--before {} is in the future; revocations cover only the past",
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
            "one of --user, --jti, --token or --kid is required".to_owned(),
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
    fn the_arguments_are_well_formed() {
        Whole::command().debug_assert();
    }

    #[test]
    fn exactly_one_target_is_accepted() {
        let valid = [
            "--user 42",
            "--user 42 --before 1",
            "--jti x",
            "--jti x --expires 1",
            "--token k",
            "--token -",
            "--kid k --store a",
        ];
        for words in valid {
            assert!(read(words).is_some(), "{words}");
        }
        let invalid = [
            "",
            "--user 42 --jti x",
            "--before 1",
            "--jti x --before 1",
            "--expires 1",
            "--kid k --expires 1",
            "--jti=",
        ];
        for words in invalid {
            assert!(read(words).is_none(), "{words}");
        }
    }

    #[test]
    fn a_jwt_revocation_is_kept_until_the_jwt_has_expired() {
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
