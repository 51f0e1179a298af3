//! Whether one route is weaker than another: whether it accepts requests to the same upstream that the other one refuses.

use std::collections::BTreeSet;
use std::fmt;

use authgate_core::policy::{Policy, Requirements};

use crate::config::{RouteRules, RouteTarget};

/// Why a route is weaker than another one, or cannot be compared with it. `Display` continues `it …`, as in `it requires no credential`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Weakness {
    Public,
    Observed,
    ForwardsUnknown,
    Optional,
    Authenticator(String),
    Requirement(String),
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("requires no credential"),
            Self::Observed => f.write_str("is not enforced for all requests"),
            Self::ForwardsUnknown => f.write_str("forwards keys that no record knows"),
            Self::Optional => f.write_str("accepts requests without a credential"),
            Self::Authenticator(name) => {
                write!(
                    f,
                    "accepts credentials of the authenticator {name:?}, which the other one does not"
                )
            }
            Self::Requirement(term) => write!(f, "does not require {term}"),
        }
    }
}

/// What a route requires of a request: the values that two routes are compared by. Routes with equal demands compare equally.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Demands<'r> {
    target: &'r RouteTarget,
    authenticators: BTreeSet<&'r str>,
    anonymous: bool,
    require: &'r Requirements,
}

impl<'r> Demands<'r> {
    /// The demands of a route with these rules; `None` for a public one, and for one that forwards requests which it
    /// does not accept: it is not enforced for all, or forwards unknown keys.
    pub(super) fn of(route: &'r RouteRules) -> Option<Self> {
        if route.rollout.is_some() || route.forwards_unknown {
            return None;
        }
        match &route.policy {
            Policy::Public => None,
            Policy::Authenticated { optional, require } => Some(Self {
                target: &route.target,
                authenticators: route.authenticate.iter().map(AsRef::as_ref).collect(),
                anonymous: *optional && require.is_empty(),
                require,
            }),
        }
    }
}

/// Why `open` is weaker than `guard`. Nothing is weaker than a public route, and routes to different upstreams are not compared.
pub(super) fn weakness(open: &RouteRules, guard: &RouteRules) -> Option<Weakness> {
    let guarded = Demands::of(guard).filter(|_| open.target == guard.target)?;
    let Some(demands) = Demands::of(open) else {
        return Some(match (open.rollout, open.forwards_unknown) {
            (Some(_), _) => Weakness::Observed,
            (None, true) => Weakness::ForwardsUnknown,
            (None, false) => Weakness::Public,
        });
    };
    if demands.anonymous && !guarded.anonymous {
        return Some(Weakness::Optional);
    }
    if let Some(more) = demands.authenticators.difference(&guarded.authenticators).next() {
        return Some(Weakness::Authenticator((*more).to_owned()));
    }
    let missing = guarded
        .require
        .terms()
        .find(|term| !term.is_implied_by(demands.require));
    missing.map(|term| Weakness::Requirement(term.to_string()))
}
