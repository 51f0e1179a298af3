//! Authorization: the [`Policy`] of a route, and [`Permit`], the proof that it was evaluated. Only a [`Rollout`](rollout::Rollout) makes
//! permits without an evaluation; they have no identity.

pub mod rollout;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::identity::{Identity, Text, UserInfo};
use crate::member::MemberPath;

/// What a route requires of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Nothing is required; credentials are not read.
    Public,
    /// A user that meets `require`; or no credential, if `optional`.
    Authenticated {
        /// A request without a credential passes as anonymous.
        optional: bool,
        /// Requirements on the user.
        require: Requirements,
    },
}

impl Policy {
    /// Whether credentials must be read.
    pub fn needs_identity(&self) -> bool {
        matches!(self, Self::Authenticated { .. })
    }

    /// Permits a browser's preflight as anonymous (Fetch Standard, section 3.3.5): a preflight has no credential; it asks which requests
    /// are allowed.
    pub fn permit_preflight(&self) -> Permit {
        Permit {
            principal: match self {
                Self::Public => Principal::Public,
                Self::Authenticated { .. } => Principal::Anonymous,
            },
        }
    }

    /// Permits a credential that no record knows, for the application to judge. `None`: there are requirements, which only a user can meet.
    pub fn permit_unknown(&self) -> Option<Permit> {
        match self {
            Self::Public => None,
            Self::Authenticated { require, .. } => require.is_empty().then_some(Permit {
                principal: Principal::Unknown,
            }),
        }
    }

    /// Evaluates the policy for an identity. Only this function, [`Policy::permit_preflight`] and [`Policy::permit_unknown`] make [`Permit`]s of enforced
    /// requests.
    ///
    /// # Errors
    /// There is no user and one is required, or the user does not meet the requirements.
    pub fn permit(&self, identity: Option<Arc<Identity>>) -> Result<Permit, Denied> {
        match (self, identity) {
            (Self::Public, _) => Ok(Permit {
                principal: Principal::Public,
            }),
            (
                Self::Authenticated {
                    optional: true,
                    require,
                },
                None,
            ) if require.is_empty() => Ok(Permit {
                principal: Principal::Anonymous,
            }),
            (Self::Authenticated { .. }, None) => Err(Denied::Unauthenticated),
            (Self::Authenticated { require, .. }, Some(identity)) => {
                require.met_by(&identity).map_err(Denied::NotAllowed)?;
                Ok(Permit {
                    principal: Principal::User(identity),
                })
            }
        }
    }
}

/// Proof that a policy permits a request, with the user. No request is forwarded without a permit.
#[derive(Debug)]
pub struct Permit {
    principal: Principal,
}

impl Permit {
    /// Who the request acts for.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether the request is only observed.
    pub fn is_observed(&self) -> bool {
        matches!(self.principal, Principal::Observed)
    }
}

/// Who a permitted request acts for.
#[derive(Debug)]
pub enum Principal {
    /// The route is public; credentials were not read.
    Public,
    /// The request had no credential, and the route allows that.
    Anonymous,
    /// An authenticated user.
    User(Arc<Identity>),
    /// The request has a credential that no record knows. The application judges it.
    Unknown,
    /// The request is observed: it is forwarded as it came, and the application authenticates it.
    Observed,
}

/// Why a policy denies a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Authentication is required: 401.
    Unauthenticated,
    /// The user does not meet the requirements: 403.
    NotAllowed(Unmet),
}

/// The requirements that an identity does not meet. For operators; clients do not see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    terms: Box<[String]>,
    lacks_only_scopes: bool,
}

impl Unmet {
    fn of<'r>(unmet: impl Iterator<Item = Term<'r>>) -> Option<Self> {
        let mut lacks_only_scopes = true;
        let terms: Box<[String]> = unmet
            .inspect(|term| lacks_only_scopes &= term.is_scope())
            .map(|term| term.to_string())
            .collect();
        (!terms.is_empty()).then_some(Self {
            terms,
            lacks_only_scopes,
        })
    }

    /// Whether a token with more scopes would be sufficient (RFC 6750, section 3.1, `insufficient_scope`).
    pub fn lacks_only_scopes(&self) -> bool {
        self.lacks_only_scopes
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "missing: {}", self.terms.join("; "))
    }
}

/// Requirements on an identity; all must be met.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Requirements {
    /// Required groups.
    pub groups: Membership,
    /// Required scopes of the credential.
    pub scopes: Membership,
    /// Required claims of the JWT: an equal value, or a list with an equal element.
    pub claims: Vec<(MemberPath, Value)>,
}

impl Requirements {
    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.scopes.is_empty() && self.claims.is_empty()
    }

    /// All single requirements.
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
        let user_info = identity.user_info();
        match Unmet::of(self.terms().filter(|term| !term.is_met_by(user_info))) {
            None => Ok(()),
            Some(unmet) => Err(unmet),
        }
    }
}

/// Required names: one of them, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Membership {
    /// At least one of these, if the list is not empty.
    pub any: Vec<String>,
    /// Every one of these.
    pub all: Vec<String>,
}

impl Membership {
    /// Whether nothing is required.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.all.is_empty()
    }

    /// Whether this requires that name.
    fn implies(&self, name: &str) -> bool {
        self.all.iter().any(|own| own == name) || matches!(self.any.as_slice(), [only] if only == name)
    }

    /// Whether this requires one of those names.
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
    /// This value of a claim, or a list that contains it.
    Claim(&'r MemberPath, &'r Value),
}

impl Term<'_> {
    fn is_met_by(self, user_info: &UserInfo) -> bool {
        let holds = |held: &[Text], wanted: &str| held.iter().any(|text| text.as_str() == wanted);
        match self {
            Self::Group(name) => holds(&user_info.groups, name),
            Self::AnyGroup(names) => names.iter().any(|name| holds(&user_info.groups, name)),
            Self::Scope(name) => holds(&user_info.scopes, name),
            Self::AnyScope(names) => names.iter().any(|name| holds(&user_info.scopes, name)),
            Self::Claim(path, wanted) => match path.find(&user_info.claims) {
                None => false,
                Some(Value::Array(elements)) => elements.contains(wanted),
                Some(value) => value == wanted,
            },
        }
    }

    /// Whether those requirements imply this one.
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

    fn is_scope(&self) -> bool {
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
    use crate::identity::{TableSet, UserId, UserInfo};

    fn ada() -> Arc<Identity> {
        let text = |text| Text::new(text).expect("plain text");
        let claims =
            json!({ "tenant": "acme", "roles": ["a", "b"], "level": 3, "realm": { "roles": ["x"], "a.b": true } });
        let user_info = UserInfo {
            authenticator: "jwt".into(),
            issuer: None,
            key: None,
            id: UserId::new("1").expect("an id"),
            username: None,
            email: None,
            groups: vec![text("staff"), text("dev")],
            scopes: vec![text("orders:read")],
            claims: claims.as_object().cloned().unwrap_or_default(),
            attributes: serde_json::Map::new(),
        };
        Arc::new(Identity::new(user_info, TableSet::unique(), Box::default(), 0))
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
                lacks_only_scopes: unmet.iter().all(|term| term.contains("scope")),
            })),
        };
        assert_eq!(policy.permit(Some(ada())).map(|_| ()), expected, "{policy:?}");
    }

    #[test]
    fn all_requirements_must_be_met_and_unmet_ones_are_listed() {
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
        let nested = [("realm.roles", json!("x")), ("realm.\"a.b\"", json!(true))];
        check(require(NONE, NONE, &nested), &[]);
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
    fn anonymous_requests_pass_only_if_optional_and_nothing_is_required() {
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
        assert_eq!(optional(staff).permit(None).map(|_| ()), Err(Denied::Unauthenticated));
        let strict = Policy::Authenticated {
            optional: false,
            require: Requirements::default(),
        };
        assert_eq!(strict.permit(None).map(|_| ()), Err(Denied::Unauthenticated));
    }
}
