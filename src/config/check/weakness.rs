//! Whether one route asks for less than another: which requests it would let pass to the same upstream that the other one would not.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::config::Route;
use crate::policy::{Membership, Policy, Requirements};

/// Why a route is weaker than another one, or cannot be compared with it. Said of the route, as in `it asks for no credential`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Weakness {
    Public,
    Optional,
    Authenticator(String),
    Group(String),
    Scope(String),
    Claim(String),
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("asks for no credential"),
            Self::Optional => f.write_str("lets requests without a credential pass"),
            Self::Authenticator(name) => {
                write!(
                    f,
                    "accepts credentials of the authenticator {name:?}, which the other one does not"
                )
            }
            Self::Group(groups) => write!(f, "does not require {groups}"),
            Self::Scope(scopes) => write!(f, "does not require {scopes}"),
            Self::Claim(claim) => write!(f, "does not require {claim}"),
        }
    }
}

/// All that counts when a route is compared. Routes with the same demands compare alike.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Demands<'r> {
    upstream: &'r str,
    authenticators: BTreeSet<&'r str>,
    anonymous: bool,
    require: &'r Requirements,
}

impl<'r> Demands<'r> {
    /// What a route demands; a public one demands nothing.
    pub(super) fn of(route: &'r Route) -> Option<Self> {
        match &route.policy {
            Policy::Public => None,
            Policy::Authenticated { optional, require } => Some(Self {
                upstream: &route.upstream,
                authenticators: route.authenticate.iter().map(AsRef::as_ref).collect(),
                anonymous: *optional && require.is_empty(),
                require,
            }),
        }
    }
}

/// Why `open` is weaker than `guard`. Nothing is weaker than a public route, and routes to different upstreams are not compared.
pub(super) fn weakness(open: &Route, guard: &Route) -> Option<Weakness> {
    let guarded = Demands::of(guard).filter(|_| open.upstream == guard.upstream)?;
    let Some(demands) = Demands::of(open) else {
        return Some(Weakness::Public);
    };
    if demands.anonymous && !guarded.anonymous {
        return Some(Weakness::Optional);
    }
    if let Some(more) = demands.authenticators.difference(&guarded.authenticators).next() {
        return Some(Weakness::Authenticator((*more).to_owned()));
    }
    let (open, guard) = (demands.require, guarded.require);
    lacking(&open.groups, &guard.groups, "the group", "the groups")
        .map(Weakness::Group)
        .or_else(|| lacking(&open.scopes, &guard.scopes, "the scope", "the scopes").map(Weakness::Scope))
        .or_else(|| {
            let claim = guard.claims.iter().find(|claim| !open.claims.contains(claim))?;
            Some(Weakness::Claim(said(claim)))
        })
}

fn said((path, value): &(String, Value)) -> String {
    format!("the claim {path} = {value}")
}

/// The first term of `guard` that whoever satisfies `open` need not satisfy.
fn lacking(open: &Membership, guard: &Membership, one: &str, several: &str) -> Option<String> {
    let has = |name: &String| open.all.contains(name) || open.any == std::slice::from_ref(name);
    if let Some(name) = guard.all.iter().find(|name| !has(name)) {
        return Some(format!("{one} {name:?}"));
    }
    let within = |names: &[String]| !names.is_empty() && names.iter().all(|name| guard.any.contains(name));
    let holds = guard.any.is_empty() || within(&open.any) || open.all.iter().any(|name| guard.any.contains(name));
    if holds {
        return None;
    }
    Some(match guard.any.as_slice() {
        [name] => format!("{one} {name:?}"),
        names => {
            let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
            format!("one of {several} {}", names.join(", "))
        }
    })
}
