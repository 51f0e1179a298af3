//! Who may pass: [`Policy`] of a route, and [`Permit`], the proof that it was asked.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::identity::{Facts, Identity, Text};
use crate::member::MemberPath;

/// What a route asks of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Nothing; no credential is read.
    Public,
    /// Somebody known, unless `optional`, who meets `require`.
    Authenticated {
        /// A request without any credential passes as nobody.
        optional: bool,
        /// What must hold of who it is.
        require: Requirements,
    },
}

impl Policy {
    /// Whether credentials are to be read at all.
    pub fn needs_identity(&self) -> bool {
        matches!(self, Self::Authenticated { .. })
    }

    /// Lets a browser's preflight pass, as nobody (Fetch Standard, section 3.3.5): it carries no credential, and asks what a request may
    /// carry.
    pub fn permit_preflight(&self) -> Permit {
        Permit {
            who: match self {
                Self::Public => Who::Public,
                Self::Authenticated { .. } => Who::Anonymous,
            },
        }
    }

    /// Judges who came. This and [`Policy::permit_preflight`] are the only makers of [`Permit`]s.
    ///
    /// # Errors
    /// Nobody where somebody is needed, or somebody who does not meet the requirements.
    pub fn permit(&self, identity: Option<Arc<Identity>>) -> Result<Permit, Denied> {
        match (self, identity) {
            (Self::Public, _) => Ok(Permit { who: Who::Public }),
            (
                Self::Authenticated {
                    optional: true,
                    require,
                },
                None,
            ) if require.is_empty() => Ok(Permit { who: Who::Anonymous }),
            (Self::Authenticated { .. }, None) => Err(Denied::NobodyKnown),
            (Self::Authenticated { require, .. }, Some(identity)) => {
                require.met_by(&identity).map_err(Denied::NotAllowed)?;
                Ok(Permit {
                    who: Who::Known(identity),
                })
            }
        }
    }
}

/// Proof that a policy let a request pass, and as whom. Nothing leaves for an upstream without one.
#[derive(Debug)]
pub struct Permit {
    who: Who,
}

impl Permit {
    /// As whom the request passes.
    pub fn who(&self) -> &Who {
        &self.who
    }
}

/// As whom a request passes.
#[derive(Debug)]
pub enum Who {
    /// Nobody was asked.
    Public,
    /// Nobody came, and that is allowed.
    Anonymous,
    /// Somebody.
    Known(Arc<Identity>),
}

/// Why a policy lets a request not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Somebody is needed: 401.
    NobodyKnown,
    /// Somebody else is needed: 403.
    NotAllowed(Unmet),
}

/// The requirements that an identity does not meet. Operators read them; clients do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    terms: Box<[String]>,
    scopes_alone: bool,
}

impl Unmet {
    fn of<'r>(unmet: impl Iterator<Item = Term<'r>>) -> Option<Self> {
        let mut scopes_alone = true;
        let terms: Box<[String]> = unmet
            .inspect(|term| scopes_alone &= term.is_of_scopes())
            .map(|term| term.to_string())
            .collect();
        (!terms.is_empty()).then_some(Self { terms, scopes_alone })
    }

    /// Whether a token with more scopes would do (RFC 6750, section 3.1, `insufficient_scope`).
    pub fn scopes_alone(&self) -> bool {
        self.scopes_alone
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "missing: {}", self.terms.join("; "))
    }
}

/// What must hold of an identity, all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Requirements {
    /// On the groups.
    pub groups: Membership,
    /// On the scopes of the credential.
    pub scopes: Membership,
    /// On claims of the JWT: equal, or for a list, an element that is equal.
    pub claims: Vec<(MemberPath, Value)>,
}

impl Requirements {
    /// Nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.scopes.is_empty() && self.claims.is_empty()
    }

    /// Each requirement by itself.
    pub fn terms(&self) -> impl Iterator<Item = Term<'_>> {
        let claims = self.claims.iter().map(|(path, value)| Term::Claim(path, value));
        let groups = &self.groups;
        let scopes = &self.scopes;
        let any = |names: &'_ Vec<String>| !names.is_empty();
        groups
            .all
            .iter()
            .map(|name| Term::Group(name))
            .chain(
                Some(&groups.any)
                    .filter(|names| any(names))
                    .map(|names| Term::AnyGroup(names)),
            )
            .chain(scopes.all.iter().map(|name| Term::Scope(name)))
            .chain(
                Some(&scopes.any)
                    .filter(|names| any(names))
                    .map(|names| Term::AnyScope(names)),
            )
            .chain(claims)
    }

    fn met_by(&self, identity: &Identity) -> Result<(), Unmet> {
        if self.is_empty() {
            return Ok(());
        }
        let facts = identity.facts();
        match Unmet::of(self.terms().filter(|term| !term.is_met_by(facts))) {
            None => Ok(()),
            Some(unmet) => Err(unmet),
        }
    }
}

/// Names of which one, or all, must be there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Membership {
    /// At least one of these, unless there are none.
    pub any: Vec<String>,
    /// Every one of these.
    pub all: Vec<String>,
}

impl Membership {
    /// Nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.all.is_empty()
    }

    /// Whether everybody who satisfies this has that name.
    fn implies(&self, name: &str) -> bool {
        self.all.iter().any(|own| own == name) || matches!(self.any.as_slice(), [only] if only == name)
    }

    /// Whether everybody who satisfies this has one of those names.
    fn implies_any(&self, names: &[String]) -> bool {
        let subset = !self.any.is_empty() && self.any.iter().all(|own| names.contains(own));
        subset || self.all.iter().any(|own| names.contains(own))
    }
}

/// One requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term<'r> {
    /// This group.
    Group(&'r str),
    /// At least one of these groups.
    AnyGroup(&'r [String]),
    /// This scope.
    Scope(&'r str),
    /// At least one of these scopes.
    AnyScope(&'r [String]),
    /// This value of a claim, or a list with this value among its elements.
    Claim(&'r MemberPath, &'r Value),
}

impl Term<'_> {
    fn is_met_by(self, facts: &Facts) -> bool {
        let holds = |held: &[Text], wanted: &str| held.iter().any(|text| text.as_str() == wanted);
        match self {
            Self::Group(name) => holds(&facts.groups, name),
            Self::AnyGroup(names) => names.iter().any(|name| holds(&facts.groups, name)),
            Self::Scope(name) => holds(&facts.scopes, name),
            Self::AnyScope(names) => names.iter().any(|name| holds(&facts.scopes, name)),
            Self::Claim(path, wanted) => match path.find(&facts.claims) {
                None => false,
                Some(Value::Array(elements)) => elements.contains(wanted),
                Some(value) => value == wanted,
            },
        }
    }

    /// Whether everybody who meets those requirements meets this one.
    pub fn is_implied_by(self, requirements: &Requirements) -> bool {
        match self {
            Self::Group(name) => requirements.groups.implies(name),
            Self::AnyGroup(names) => requirements.groups.implies_any(names),
            Self::Scope(name) => requirements.scopes.implies(name),
            Self::AnyScope(names) => requirements.scopes.implies_any(names),
            Self::Claim(path, value) => requirements
                .claims
                .iter()
                .any(|(own, wanted)| own == path && wanted == value),
        }
    }

    fn is_of_scopes(&self) -> bool {
        match self {
            Self::Scope(_) | Self::AnyScope(_) => true,
            Self::Group(_) | Self::AnyGroup(_) | Self::Claim(..) => false,
        }
    }
}

impl fmt::Display for Term<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, names) = match self {
            Self::Group(name) => return write!(f, "group {name:?}"),
            Self::Scope(name) => return write!(f, "scope {name:?}"),
            Self::Claim(path, value) => return write!(f, "claim {path} = {value}"),
            Self::AnyGroup(names) => ("group", names),
            Self::AnyScope(names) => ("scope", names),
        };
        match names {
            [name] => write!(f, "{one} {name:?}"),
            names => {
                let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
                write!(f, "one of the {one}s {}", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::{Facts, UserId};

    fn ada() -> Arc<Identity> {
        let text = |text| Text::new(text).expect("plain text");
        let claims =
            json!({ "tenant": "acme", "roles": ["a", "b"], "level": 3, "realm": { "roles": ["x"], "a.b": true } });
        let facts = Facts {
            authenticator: "jwt".into(),
            id: UserId::new("1").expect("an id"),
            username: None,
            email: None,
            groups: vec![text("staff"), text("dev")],
            scopes: vec![text("orders:read")],
            claims: claims.as_object().cloned().unwrap_or_default(),
            attributes: serde_json::Map::new(),
        };
        Arc::new(Identity::new(facts, &[]).expect("plain values"))
    }

    fn require(groups: (&[&str], &[&str]), scopes: (&[&str], &[&str]), claims: &[(&str, Value)]) -> Requirements {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let membership = |(any, all): (&[&str], &[&str])| Membership {
            any: names(any),
            all: names(all),
        };
        Requirements {
            groups: membership(groups),
            scopes: membership(scopes),
            claims: claims
                .iter()
                .map(|(path, value)| (MemberPath::parse(path).expect("a path"), value.clone()))
                .collect(),
        }
    }

    fn check(require: Requirements, unmet: &[&str]) {
        let policy = Policy::Authenticated {
            optional: false,
            require,
        };
        let expected = match unmet {
            [] => Ok(()),
            unmet => Err(Denied::NotAllowed(Unmet {
                terms: unmet.iter().map(ToString::to_string).collect(),
                scopes_alone: unmet.iter().all(|term| term.contains("scope")),
            })),
        };
        assert_eq!(policy.permit(Some(ada())).map(|_| ()), expected, "{policy:?}");
    }

    #[test]
    fn requirements_are_met_all_together_and_each_that_is_not_is_named() {
        const NONE: (&[&str], &[&str]) = (&[], &[]);
        check(require(NONE, NONE, &[]), &[]);
        check(require((&["staff", "x"], &[]), NONE, &[]), &[]);
        check(require((&["x"], &[]), NONE, &[]), &["group \"x\""]);
        check(
            require((&["x", "y"], &[]), NONE, &[]),
            &["one of the groups \"x\", \"y\""],
        );
        check(require((&[], &["staff", "dev"]), NONE, &[]), &[]);
        check(require((&[], &["staff", "x"]), NONE, &[]), &["group \"x\""]);
        check(
            require(NONE, (&[], &["orders:read"]), &[("tenant", json!("acme"))]),
            &[],
        );
        check(
            require(NONE, (&["orders:write"], &[]), &[]),
            &["scope \"orders:write\""],
        );
        check(
            require((&["x"], &[]), (&["a", "b"], &["c"]), &[("tenant", json!("other"))]),
            &[
                "group \"x\"",
                "scope \"c\"",
                "one of the scopes \"a\", \"b\"",
                "claim tenant = \"other\"",
            ],
        );
        check(require(NONE, NONE, &[("roles", json!("b")), ("level", json!(3))]), &[]);
        check(require(NONE, NONE, &[("level", json!("3"))]), &["claim level = \"3\""]);
        check(
            require(NONE, NONE, &[("absent", json!(null))]),
            &["claim absent = null"],
        );
        let walked = [("realm.roles", json!("x")), ("realm.\"a.b\"", json!(true))];
        check(require(NONE, NONE, &walked), &[]);
        check(
            require(
                NONE,
                NONE,
                &[("\"realm.roles\"", json!("x")), ("tenant.x", json!("acme"))],
            ),
            &["claim \"realm.roles\" = \"x\"", "claim tenant.x = \"acme\""],
        );
    }

    #[test]
    fn nobody_passes_only_where_nothing_is_asked() {
        let optional = |require| Policy::Authenticated {
            optional: true,
            require,
        };
        assert!(optional(Requirements::default()).permit(None).is_ok());
        let staff = Requirements {
            groups: Membership {
                any: vec!["staff".into()],
                all: vec![],
            },
            ..Requirements::default()
        };
        assert_eq!(optional(staff).permit(None).map(|_| ()), Err(Denied::NobodyKnown));
        let strict = Policy::Authenticated {
            optional: false,
            require: Requirements::default(),
        };
        assert_eq!(strict.permit(None).map(|_| ()), Err(Denied::NobodyKnown));
    }
}
