//! `authgate revoke`: writes a revocation to a store.

use std::time::Duration;

use authgate_auth::RevocationKind;
use authgate_core::identity::UserId;

use super::stores::{self, StoreName};
use super::values::{self, Key, time_text};
use super::{Failure, StoreContext, output, token};
use crate::provisioning::{LongExpired, Revocation};

/// Revoke all credentials of a user, one JWT, one opaque token, or all JWTs that one key has signed
///
/// Opaque tokens are always checked for revocation; JWTs only if their authenticator has `revocation` set to the store. Gateways refuse
/// revoked credentials within a second. With `invalidation = "off"`, or while a gateway has lost its invalidation connection, this
/// takes up to `cache.ttl` (60s by default). If the store has replicas, the command waits for one of them. Open WebSockets, server-sent
/// events and gRPC calls end too, unless their route has `streams = "keep"`; a download or an upload goes on to its end. A revocation
/// cannot be undone.
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
  authgate revoke --jti 3f2a9c --expires 2030-01-01T00:00:00Z
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
    let revocation = match revocation(args, now, context.largest_leeway)? {
        Ok(revocation) => revocation,
        Err(LongExpired) => {
            let jti = args.jti.as_deref().unwrap_or_default();
            return output::line(format_args!(
                "JWT {jti} has already expired; there is nothing to revoke"
            ));
        }
    };
    let mut store = args.store.open_to_write(context)?;
    store.revoke(&revocation, now)?;
    stores::note_replication(&mut store);
    let kind = match &revocation {
        Revocation::User { .. } => RevocationKind::User,
        Revocation::Jti { .. } => RevocationKind::Jti,
        Revocation::Kid { .. } => RevocationKind::Kid,
    };
    args.store.note_unchecked(kind, context)?;
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

fn revocation(args: &Args, now: i64, leeway: Duration) -> Result<Result<Revocation, LongExpired>, Failure> {
    match (&args.user, &args.jti, &args.kid) {
        (Some(id), _, _) => {
            let revocation = Revocation::of_user(id.clone(), args.before, now);
            let revocation = revocation.map_err(|problem| Failure::Usage(format!("--before {problem}")));
            Ok(Ok(revocation?))
        }
        (None, Some(jti), _) => Ok(Revocation::of_jti(jti.clone(), args.expires, leeway, now)),
        (None, None, Some(kid)) => Ok(Ok(Revocation::Kid { kid: kid.clone() })),
        (None, None, None) => Err(Failure::Usage(
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
}
