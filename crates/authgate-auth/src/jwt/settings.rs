//! The settings of JWT authenticators.

use std::collections::BTreeSet;
use std::sync::Arc;

use authgate_core::identity::{UserId, UserInfo};

use super::issuers::{Issuer, Issuers};
use super::key_set::KeySelection;
use super::key_sources::KeySources;
use super::users::{UserIdField, Users};
use crate::dependencies::ChangeCounters;
use crate::form::CredentialForm;
use crate::withdrawn::{Withdrawn, check_revocation};

/// The settings of this kind.
#[derive(Debug, PartialEq, Eq)]
pub struct JwtSettings {
    /// Whose tokens are accepted, and by which keys and rules.
    pub issuers: Issuers,
    /// The form of the tokens that are read.
    pub form: CredentialForm,
    /// Name of the store with revocations, if these are checked.
    pub revocation: Option<Arc<str>>,
}

impl JwtSettings {
    /// A source of keys is kept where its settings are equal.
    pub(crate) fn share(
        &self,
        authenticator: &Arc<str>,
        previous: Option<&KeySources>,
        counters: &Arc<ChangeCounters>,
    ) -> KeySources {
        let remote = self.issuers.all().map(|issuer| issuer.keys.remote());
        KeySources::new(authenticator, remote, previous, counters)
    }

    pub(crate) fn stores(&self) -> Vec<&Arc<str>> {
        let of_issuers = self
            .issuers
            .all()
            .flat_map(|issuer| [issuer.users.store(), issuer.binding.store()]);
        let distinct: BTreeSet<&Arc<str>> = of_issuers.flatten().chain(&self.revocation).collect();
        distinct.into_iter().collect()
    }

    pub(crate) fn still_accepts(
        &self,
        user: &UserInfo,
        previous: &Self,
        is_same_store: &dyn Fn(&str, &str) -> bool,
    ) -> Result<(), Withdrawn> {
        let name = user.issuer.as_deref();
        let (Some(issuer), Some(previous_issuer)) =
            (self.issuers.that_accepts(name), previous.issuers.that_accepts(name))
        else {
            return Err(Withdrawn::Issuer);
        };
        if !issuer.keys.still_has(user.key.as_deref(), &previous_issuer.keys) {
            return Err(Withdrawn::Key);
        }
        check_revocation(self.revocation.as_ref(), previous.revocation.as_ref(), is_same_store)?;
        issuer.users.still_accepts(&previous_issuer.users, is_same_store)?;
        // A set requires the key id, which the token may not have.
        let requires_key_id = issuer.keys.selection() == KeySelection::ByKid
            && previous_issuer.keys.selection() == KeySelection::ByKidIfBoth;
        // What was accepted is a JWT.
        let reads_jwts = self.form.includes(CredentialForm::Jwt);
        let is_accepted = !requires_key_id
            && reads_jwts
            && issuer.names(&user.id, previous_issuer)
            && issuer.rules.accept_all_of(&previous_issuer.rules)
            && issuer.binding.accept_all_of(&previous_issuer.binding);
        match is_accepted {
            true => Ok(()),
            false => Err(Withdrawn::Stricter),
        }
    }
}

impl Issuer {
    /// Whether a token that has named this user by `previous` names the same one here.
    fn names(&self, user: &UserId, previous: &Self) -> bool {
        match &self.users {
            Users::Claims { .. }
            | Users::Store {
                field: UserIdField::Id, ..
            } => self.namespace.still_names(user, &previous.namespace),
            // The token has named the username, which is not known here.
            Users::Store {
                field: UserIdField::Username,
                ..
            } => self.namespace == previous.namespace,
        }
    }
}

#[cfg(test)]
mod tests {
    use authgate_core::secret::Secret;

    use super::super::issuers::{IssuerTable, Namespace};
    use super::super::key_set::KeySet;
    use super::super::keys::{Algorithm, VerificationKey};
    use super::super::rules::{Profile, Rules};
    use super::*;
    use crate::binding_rules::BindingRules;
    use crate::identities::fixtures;

    /// A user of the issuer with this name whose token was verified by the key with this secret.
    fn user(issuer: Option<&str>, id: &str, secret: &str) -> UserInfo {
        UserInfo {
            issuer: issuer.map(Arc::from),
            key: Some(Arc::clone(key(secret).identity())),
            ..fixtures::user_info("jwt", id)
        }
    }

    fn key(secret: &str) -> VerificationKey {
        let secret = Secret::new(secret.as_bytes().to_vec());
        VerificationKey::from_secret(Algorithm::HS256, Some("k"), &secret).expect("a key")
    }

    fn issuer(name: &str, namespace: &str, secret: &str) -> Issuer {
        Issuer {
            keys: KeySet::Static(vec![key(secret)]),
            token_bytes: 1024,
            rules: Rules {
                issuer: vec![name.to_owned()],
                ..Rules::plain()
            },
            users: Users::Claims {
                username_claim: "username".to_owned(),
            },
            binding: Arc::new(BindingRules::OFF),
            namespace: Namespace::new(namespace).expect("a namespace"),
        }
    }

    /// Issuers by name, namespace and secret.
    fn several(all: &[(&str, &str, &str)]) -> JwtSettings {
        let all = all
            .iter()
            .map(|(name, namespace, secret)| ((*name).into(), issuer(name, namespace, secret)));
        settings(Issuers::ByName(IssuerTable::new(Profile::Plain, all.collect())))
    }

    fn settings(issuers: Issuers) -> JwtSettings {
        JwtSettings {
            issuers,
            form: CredentialForm::Any,
            revocation: None,
        }
    }

    #[test]
    fn a_stream_goes_on_while_its_own_issuer_is_the_same() {
        let previous = several(&[("a", "", "one"), ("b", "b:", "two")]);
        let (ada, ben) = (user(Some("a"), "42", "one"), user(Some("b"), "b:42", "two"));
        let check = |new: &JwtSettings, expected: [Result<(), Withdrawn>; 2]| {
            let accepted = [&ada, &ben].map(|user| new.still_accepts(user, &previous, &|one, other| one == other));
            assert_eq!(accepted, expected, "{new:?}");
        };
        check(&previous, [Ok(()), Ok(())]);
        check(&several(&[("a", "", "one")]), [Ok(()), Err(Withdrawn::Issuer)]);
        check(
            &several(&[("b", "b:", "two"), ("c", "c:", "new"), ("a", "", "one")]),
            [Ok(()), Ok(())],
        );
        // The key is there, but it is that of another issuer.
        let exchanged = several(&[("a", "", "two"), ("b", "b:", "one")]);
        check(&exchanged, [Err(Withdrawn::Key), Err(Withdrawn::Key)]);
        let renamed = several(&[("a", "", "one"), ("b", "other:", "two")]);
        check(&renamed, [Ok(()), Err(Withdrawn::Stricter)]);
        // An id that belongs to the namespace of another issuer now.
        let taken = several(&[
            ("a", "", "one"),
            ("b", "b:", "two"),
            ("c", "4", "new"),
            ("d", "b:42", "new"),
        ]);
        check(&taken, [Err(Withdrawn::Stricter), Err(Withdrawn::Stricter)]);
        // One issuer in place of several accepts only what it would accept.
        let one = settings(Issuers::One(issuer("a", "", "one")));
        check(&one, [Ok(()), Err(Withdrawn::Key)]);
        let back = previous.still_accepts(&user(None, "42", "one"), &one, &|_, _| true);
        assert_eq!(back, Err(Withdrawn::Issuer));
    }
}
