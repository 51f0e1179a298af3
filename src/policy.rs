//! Who may pass: [`Policy`] of a route, and [`Permit`], the proof that it was asked.

use std::sync::Arc;

use serde_json::Value;

use crate::identity::{Identity, Text};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Somebody is needed: 401.
    NobodyKnown,
    /// Somebody else is needed: 403.
    NotAllowed(Unmet),
}

/// Which requirement is not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmet {
    /// The scopes alone: a token with more of them would do (RFC 6750, section 3.1, `insufficient_scope`).
    Scopes,
    /// Groups or claims: this user does not pass with any token.
    Other,
}

/// What must hold of an identity, all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Requirements {
    /// On the groups.
    pub groups: Membership,
    /// On the scopes of the credential.
    pub scopes: Membership,
    /// On claims of the JWT: equal, or for a list, an element that is equal.
    pub claims: Vec<(String, Value)>,
}

impl Requirements {
    /// Nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.scopes.is_empty() && self.claims.is_empty()
    }

    fn met_by(&self, identity: &Identity) -> Result<(), Unmet> {
        let facts = identity.facts();
        let claims = self.claims.iter().all(|(name, wanted)| match facts.claims.get(name) {
            None => false,
            Some(Value::Array(elements)) => elements.contains(wanted),
            Some(value) => value == wanted,
        });
        match (
            claims && self.groups.met_by(&facts.groups),
            self.scopes.met_by(&facts.scopes),
        ) {
            (true, true) => Ok(()),
            (true, false) => Err(Unmet::Scopes),
            (false, _) => Err(Unmet::Other),
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

    fn met_by(&self, held: &[Text]) -> bool {
        let holds = |wanted: &String| held.iter().any(|text| text.as_str() == wanted);
        (self.any.is_empty() || self.any.iter().any(holds)) && self.all.iter().all(holds)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::{Facts, UserId};

    fn ada() -> Arc<Identity> {
        let text = |text| Text::new(text).expect("plain text");
        let claims = json!({ "tenant": "acme", "roles": ["a", "b"], "level": 3 });
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
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        }
    }

    fn check(require: Requirements, expected: Result<(), Denied>) {
        let policy = Policy::Authenticated {
            optional: false,
            require,
        };
        assert_eq!(policy.permit(Some(ada())).map(|_| ()), expected, "{policy:?}");
    }

    #[test]
    fn requirements_are_met_all_together() {
        const OTHER: Result<(), Denied> = Err(Denied::NotAllowed(Unmet::Other));
        const NONE: (&[&str], &[&str]) = (&[], &[]);
        check(require(NONE, NONE, &[]), Ok(()));
        check(require((&["staff", "x"], &[]), NONE, &[]), Ok(()));
        check(require((&["x"], &[]), NONE, &[]), OTHER);
        check(require((&[], &["staff", "dev"]), NONE, &[]), Ok(()));
        check(require((&[], &["staff", "x"]), NONE, &[]), OTHER);
        check(
            require(NONE, (&[], &["orders:read"]), &[("tenant", json!("acme"))]),
            Ok(()),
        );
        check(
            require(NONE, (&["orders:write"], &[]), &[]),
            Err(Denied::NotAllowed(Unmet::Scopes)),
        );
        check(require((&["x"], &[]), (&["orders:write"], &[]), &[]), OTHER);
        check(require(NONE, NONE, &[("tenant", json!("other"))]), OTHER);
        check(
            require(NONE, NONE, &[("roles", json!("b")), ("level", json!(3))]),
            Ok(()),
        );
        check(require(NONE, NONE, &[("level", json!("3"))]), OTHER);
        check(require(NONE, NONE, &[("absent", json!(null))]), OTHER);
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
