//! [`Revocation`]: what is revoked, and until when a store keeps it. `authgate revoke` and `POST /revoke` have the same rules.

use std::time::Duration;

use authgate_core::identity::UserId;

use super::time::time_text;

/// How far a user's revocation may reach into the future, for clock skew. Later times are refused as typing errors: a revocation cannot be
/// undone.
const MAX_AHEAD: i64 = 3600;
/// A revocation of a JWT is kept this many seconds after the JWT has expired.
const MARGIN: i64 = 60;

/// A revocation of credentials that were issued elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// Credentials that were issued to this user up to a time.
    User {
        /// The user.
        id: UserId,
        /// Unix seconds.
        before: i64,
    },
    /// One JWT.
    Jti {
        /// Its id.
        jti: String,
        /// The Unix second after which the store may remove the record; `None`: never.
        forget: Option<i64>,
    },
    /// A key that JWTs are signed with.
    Kid {
        /// Its id, or its thumbprint.
        kid: String,
    },
}

/// A user's revocation reaches into the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} is in the future; revocations cover only the past", time_text(self.0))]
pub struct InFuture(i64);

/// The JWT has expired so long ago that no gateway accepts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongExpired;

impl Revocation {
    /// Revokes what was issued to a user up to a time, or up to now.
    ///
    /// # Errors
    /// The time is in the future.
    pub fn of_user(id: UserId, before: Option<i64>, now: i64) -> Result<Self, InFuture> {
        let before = before.unwrap_or(now);
        if before > now.saturating_add(MAX_AHEAD) {
            return Err(InFuture(before));
        }
        Ok(Self::User { id, before })
    }

    /// Revokes one JWT, which expires at this time. `largest_leeway`: of all authenticators.
    ///
    /// # Errors
    /// No gateway accepts the JWT now.
    pub fn of_jti(jti: String, expires: Option<i64>, largest_leeway: Duration, now: i64) -> Result<Self, LongExpired> {
        // A fraction of a second counts as a second.
        let leeway = i64::try_from(largest_leeway.as_secs())
            .unwrap_or(i64::MAX)
            .saturating_add(1);
        let forget = expires.map(|expires| expires.saturating_add(leeway).saturating_add(MARGIN));
        if forget.is_some_and(|forget| forget <= now) {
            return Err(LongExpired);
        }
        Ok(Self::Jti { jti, forget })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwt_revocation_is_kept_until_the_jwt_has_expired() {
        let of_jti = |expires| Revocation::of_jti("x".to_owned(), expires, Duration::from_millis(4500), 1000);
        let jti = |forget| {
            Ok(Revocation::Jti {
                jti: "x".to_owned(),
                forget,
            })
        };
        assert_eq!(of_jti(Some(2000)), jti(Some(2065)));
        assert_eq!(of_jti(None), jti(None));
        assert_eq!(of_jti(Some(936)), jti(Some(1001)));
        assert_eq!(of_jti(Some(935)), Err(LongExpired));
        assert_eq!(of_jti(Some(i64::MAX)), jti(Some(i64::MAX)));
    }

    #[test]
    fn a_user_revocation_covers_only_the_past() {
        let of_user = |before| {
            let id = UserId::new("42").expect("an id");
            match Revocation::of_user(id, before, 1000) {
                Ok(Revocation::User { before, .. }) => Some(before),
                Ok(_) | Err(_) => None,
            }
        };
        assert_eq!(of_user(None), Some(1000));
        assert_eq!(of_user(Some(7)), Some(7));
        assert_eq!(of_user(Some(4600)), Some(4600));
        assert_eq!(of_user(Some(4601)), None);
    }
}
