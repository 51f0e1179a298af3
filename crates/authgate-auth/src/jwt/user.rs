//! What stores say about a token and the user that it names.

use std::rc::Rc;

use tokio::time::Instant;

use super::{JwtEvaluator, UserIdField, Users, VerifiedBy};
use crate::claims::user::NamedUser;
use crate::store::{JwtFacts, JwtQuery, Lookup, StoreError, UserKey};

impl JwtEvaluator {
    /// Asks the stores; with a single lookup if users and revocations are in the same store.
    pub(super) async fn look_up(
        &self,
        jti: Option<&str>,
        verified: VerifiedBy<'_, '_>,
        named: Option<&NamedUser>,
        lookup: &mut Lookup,
    ) -> Result<JwtFacts, StoreError> {
        let VerifiedBy { selected, key } = verified;
        let id = named.and_then(NamedUser::id);
        // The user to look up, and the id whose revocation to look up. If the claim is a username, only the user record has the id.
        let (user, by_claim) = match &selected.issuer.users {
            Users::Claims { .. } => (None, id),
            Users::Store {
                field: UserIdField::Id, ..
            } => (id.map(UserKey::Id), id),
            Users::Store {
                field: UserIdField::Username,
                ..
            } => (id.map(|name| UserKey::Name(name.as_str())), None),
        };
        let revocations = JwtQuery {
            jti,
            kid: Some(key.id()),
            revoked_user: by_claim,
            user: None,
        };
        // A token that has waited for keys has no more time for the stores than others.
        lookup.deadline = lookup.deadline.min(Instant::now() + self.store_time_limit);
        match (&self.users[selected.at], &self.revocation) {
            (None, None) => Ok(JwtFacts::default()),
            (None, Some(store)) => store.jwt(revocations, lookup).await,
            (Some(store), None) => {
                let facts = store
                    .jwt(
                        JwtQuery {
                            user,
                            ..JwtQuery::default()
                        },
                        lookup,
                    )
                    .await?;
                Ok(JwtFacts {
                    user: facts.user,
                    ..JwtFacts::default()
                })
            }
            (Some(users), Some(revocation)) if Rc::ptr_eq(users, revocation) => {
                users.jwt(JwtQuery { user, ..revocations }, lookup).await
            }
            (Some(users), Some(revocation)) => {
                let user = users
                    .jwt(
                        JwtQuery {
                            user,
                            ..JwtQuery::default()
                        },
                        lookup,
                    )
                    .await?
                    .user;
                let revoked_user = by_claim.or(user.as_ref().map(|user| &user.id));
                let facts = revocation
                    .jwt(
                        JwtQuery {
                            revoked_user,
                            ..revocations
                        },
                        lookup,
                    )
                    .await?;
                Ok(JwtFacts { user, ..facts })
            }
        }
    }
}
