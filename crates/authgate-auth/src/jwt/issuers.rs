//! The issuers of one authenticator, and the namespaces that keep their users apart.
//!
//! Each issuer has its own keys, rules and users. Where there are several, the `iss` of a token selects one before any key is tried, and
//! only its own keys are tried.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use authgate_core::identity::{InvalidText, UserId};

use super::key_set::KeySet;
use super::rules::{Profile, Rules};
use super::users::Users;
use crate::binding_rules::{BindingRules, Requirement};
use crate::claims::user::NamedUser;

/// What is accepted of one issuer: its keys, rules and users.
#[derive(Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The keys, and how a token selects one.
    pub keys: KeySet,
    /// Longer tokens are refused.
    pub token_bytes: usize,
    /// Rules for the claims.
    pub rules: Rules,
    /// Where the user of a token comes from.
    pub users: Users,
    /// What requests with bound tokens must prove.
    pub binding: Arc<BindingRules>,
    /// What is put before the ids of its users.
    pub namespace: Namespace,
}

/// The issuers of an authenticator.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one value for each authenticator")]
pub enum Issuers {
    /// The only one. Its rules decide whether `iss` is checked.
    One(Issuer),
    /// Several: `iss` selects one.
    ByName(IssuerTable),
}

impl Issuers {
    /// All issuers, in the order of the configuration.
    pub fn all(&self) -> impl Iterator<Item = &Issuer> {
        let (one, named) = match self {
            Self::One(issuer) => (Some(issuer), &[][..]),
            Self::ByName(table) => (None, &*table.issuers),
        };
        one.into_iter().chain(named.iter().map(|named| &named.issuer))
    }

    /// The profile, which all issuers share.
    pub fn profile(&self) -> Profile {
        match self {
            Self::One(issuer) => issuer.rules.profile,
            Self::ByName(table) => table.profile,
        }
    }

    /// The largest `token_bytes`.
    pub(super) fn token_bytes(&self) -> usize {
        match self {
            Self::One(issuer) => issuer.token_bytes,
            Self::ByName(table) => table.token_bytes,
        }
    }

    /// The largest leeway.
    pub(crate) fn leeway(&self) -> Duration {
        self.all().map(|issuer| issuer.rules.leeway).max().unwrap_or_default()
    }

    /// The issuer that accepts tokens of the issuer with this name, if there is one. `None`: the name is not known.
    pub(super) fn that_accepts(&self, name: Option<&str>) -> Option<&Issuer> {
        match self {
            Self::One(issuer) => Some(issuer),
            Self::ByName(table) => table.find(name?).map(|selected| selected.issuer),
        }
    }
}

/// Issuers by the name that their tokens have as `iss`.
#[derive(Debug, PartialEq, Eq)]
pub struct IssuerTable {
    profile: Profile,
    /// In the order of the configuration. Each accepts its own name as `iss`, and no other.
    issuers: Vec<NamedIssuer>,
    /// Positions in `issuers`.
    by_name: HashMap<Arc<str>, usize>,
    /// The largest of all issuers.
    token_bytes: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct NamedIssuer {
    name: Arc<str>,
    issuer: Issuer,
}

impl IssuerTable {
    /// Makes the table of these issuers, whose names are distinct.
    pub fn new(profile: Profile, issuers: Vec<(Arc<str>, Issuer)>) -> Self {
        let namespaces: Vec<Namespace> = issuers.iter().map(|(_, issuer)| issuer.namespace.clone()).collect();
        // Then the authenticator has the scheme DPoP, for all issuers.
        let has_dpop = issuers
            .iter()
            .any(|(_, issuer)| issuer.binding.dpop != Requirement::Off);
        let issuers: Vec<NamedIssuer> = issuers
            .into_iter()
            .map(|(name, issuer)| NamedIssuer {
                issuer: Issuer {
                    binding: Arc::new(BindingRules {
                        dpop_beside: has_dpop,
                        ..BindingRules::clone(&issuer.binding)
                    }),
                    rules: Rules {
                        issuer: vec![name.as_ref().to_owned()],
                        ..issuer.rules
                    },
                    namespace: issuer.namespace.beside(&namespaces),
                    ..issuer
                },
                name,
            })
            .collect();
        Self {
            profile,
            by_name: (issuers.iter().enumerate())
                .map(|(at, named)| (Arc::clone(&named.name), at))
                .collect(),
            token_bytes: issuers.iter().map(|named| named.issuer.token_bytes).max().unwrap_or(0),
            issuers,
        }
    }

    /// Finds an issuer by its exact name, in a time that does not depend on their number.
    pub(super) fn find(&self, name: &str) -> Option<SelectedIssuer<'_>> {
        let at = *self.by_name.get(name)?;
        let NamedIssuer { name, issuer } = self.issuers.get(at)?;
        Some(SelectedIssuer {
            at,
            name: Some(name),
            issuer,
        })
    }

    /// The names, in the order of the configuration.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.issuers.iter().map(|named| &named.name)
    }
}

/// The issuer that decides about a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct SelectedIssuer<'s> {
    /// Its position in [`Issuers::all`].
    pub(super) at: usize,
    /// Its name, if `iss` has selected it.
    pub(super) name: Option<&'s Arc<str>>,
    pub(super) issuer: &'s Issuer,
}

/// A text that is put before the ids of an issuer's users, so that no two issuers name the same user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    prefix: Box<str>,
    /// Longer namespaces of other issuers that begin with `prefix`: sorted, and none begins with another one. An id that begins with one of
    /// them belongs to the other issuer.
    others: Box<[Box<str>]>,
}

/// A text cannot be a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have at most {max} bytes, without control characters and without a blank at its start", max = Namespace::MAX_BYTES)]
pub struct InvalidNamespace;

impl Namespace {
    /// It leaves room for an id: both together have at most 255 bytes.
    const MAX_BYTES: usize = 128;

    /// Checks a text. The empty one changes no id.
    ///
    /// # Errors
    /// No id could begin with it, or hardly any.
    pub fn new(text: &str) -> Result<Self, InvalidNamespace> {
        let is_valid = text.len() <= Self::MAX_BYTES
            && !text.starts_with(char::is_whitespace)
            && !text.chars().any(char::is_control);
        is_valid
            .then(|| Self {
                prefix: text.into(),
                others: Box::default(),
            })
            .ok_or(InvalidNamespace)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.prefix
    }

    /// The same, beside the namespaces of other issuers.
    fn beside(self, all: &[Self]) -> Self {
        let is_longer = |other: &&str| other.len() > self.prefix.len() && other.starts_with(&*self.prefix);
        let mut longer: Vec<&str> = all.iter().map(Self::as_str).filter(is_longer).collect();
        longer.sort_unstable();
        let mut others: Vec<Box<str>> = Vec::new();
        for other in longer {
            // What begins with another one follows it in this order.
            if others.last().is_none_or(|last| !other.starts_with(&**last)) {
                others.push(other.into());
            }
        }
        Self {
            others: others.into(),
            ..self
        }
    }

    /// The user that the issuer calls so.
    ///
    /// The name itself is valid already: a namespace does not help an empty one, or one that begins with a blank.
    pub(super) fn user(&self, named: NamedUser) -> NamedUser {
        let NamedUser::Id(id) = named else { return named };
        let id = match &*self.prefix {
            "" => id,
            prefix => match UserId::new(&format!("{prefix}{}", id.as_str())) {
                Ok(id) => id,
                Err(InvalidText) => {
                    return NamedUser::Invalid("has more than 255 bytes with the namespace of its issuer");
                }
            },
        };
        match self.is_of_another(id.as_str()) {
            true => NamedUser::Invalid("begins with the namespace of another issuer"),
            false => NamedUser::Id(id),
        }
    }

    /// Whether a user with this id, which the namespace `previous` has made, has the same id here.
    pub(super) fn still_names(&self, user: &UserId, previous: &Self) -> bool {
        self.prefix == previous.prefix && !self.is_of_another(user.as_str())
    }

    /// Whether the id begins with a namespace of `others`. That namespace is the last one that is not greater than the id: those between
    /// the two would begin with it.
    fn is_of_another(&self, id: &str) -> bool {
        let at = self.others.partition_point(|other| **other <= *id);
        at.checked_sub(1)
            .and_then(|at| self.others.get(at))
            .is_some_and(|other| id.starts_with(&**other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::user::IdNumbers;

    fn issuer(namespace: &str) -> Issuer {
        Issuer {
            keys: KeySet::Static(Vec::new()),
            token_bytes: namespace.len(),
            rules: Rules::plain(),
            users: Users::Claims {
                username_claim: "username".to_owned(),
            },
            binding: Arc::new(BindingRules::OFF),
            namespace: Namespace::new(namespace).expect("a namespace"),
        }
    }

    fn table(namespaces: &[&str]) -> IssuerTable {
        let issuers = namespaces.iter().enumerate();
        let issuers = issuers.map(|(at, namespace)| (Arc::from(format!("https://{at}")), issuer(namespace)));
        IssuerTable::new(Profile::Plain, issuers.collect())
    }

    fn user(namespace: &Namespace, name: &str) -> Option<UserId> {
        let named = NamedUser::from_claim(&name.into(), IdNumbers::Integers);
        namespace.user(named).id().cloned()
    }

    #[test]
    fn an_issuer_is_found_by_its_exact_name_and_accepts_no_other() {
        let table = table(&["a:", "bcd:"]);
        for (name, expected) in [
            ("https://0", Some("a:")),
            ("https://1", Some("bcd:")),
            ("https://2", None),
            ("https://0/", None),
            ("HTTPS://0", None),
            ("", None),
        ] {
            let found = table.find(name).map(|selected| selected.issuer.namespace.as_str());
            assert_eq!(found, expected, "{name}");
        }
        for (named, name) in table.issuers.iter().zip(table.names()) {
            assert_eq!(named.issuer.rules.issuer, [name.as_ref()]);
        }
        assert_eq!(Issuers::ByName(table).token_bytes(), 4);
    }

    #[test]
    fn no_two_issuers_name_the_same_user() {
        // Each is a prefix of some other one, or of none.
        let all = ["", "a", "ab", "ab:", "b", "ba:", "c:"];
        let table = table(&all);
        let ids = |at: usize| {
            let namespace = &table.issuers[at].issuer.namespace;
            let ids = [
                "1", "b", "b1", "b:1", ":1", "a1", "ab:1", "ba:1", "a:1", "c:1", "c", "d", "~",
            ];
            ids.into_iter().filter_map(|id| user(namespace, id))
        };
        let mut named = std::collections::BTreeMap::new();
        for (at, prefix) in all.iter().enumerate() {
            for id in ids(at) {
                assert!(id.as_str().starts_with(prefix));
                let before = named.insert(id.clone(), at);
                assert!(before.is_none(), "{id:?} is a user of {at} and of {before:?}");
            }
        }
        assert_eq!(
            ids(0).map(|id| id.as_str().to_owned()).collect::<Vec<_>>(),
            ["1", ":1", "c", "d", "~"]
        );
        assert_eq!(ids(3).count(), 13);
    }

    #[test]
    fn a_namespace_does_not_make_an_invalid_id_valid() {
        let namespace = Namespace::new("partner:").expect("a namespace");
        let id = |id: &str| user(&namespace, id).map(|id| id.as_str().to_owned());
        assert_eq!(id("5").as_deref(), Some("partner:5"));
        for bad in ["", " ", " 5", "5 ", "\t5", "a\nb", "\u{85}"] {
            assert_eq!(id(bad), None, "{bad:?}");
        }
        assert_eq!(id(&"x".repeat(247)).map(|id| id.len()), Some(255));
        assert_eq!(id(&"x".repeat(248)), None);
    }

    #[test]
    fn a_namespace_is_a_text_that_ids_can_begin_with() {
        for good in ["", "a:", "https://issuer.example/ ", "日本:", &"x".repeat(128)] {
            assert!(Namespace::new(good).is_ok(), "{good:?}");
        }
        for bad in [" a", "\u{a0}a", "a\0", "a\n", "\u{9f}", &"x".repeat(129)] {
            assert!(Namespace::new(bad).is_err(), "{bad:?}");
        }
    }
}
