//! Readmission: whether the configuration in force would admit a stream that an earlier one has admitted.
//!
//! It evaluates the facts that the stream keeps, and asks no store. Whether its credential is still valid is checked apart from that, in
//! `stream_checks.rs`.

use std::rc::Rc;
use std::sync::Arc;

use authgate_auth::{Authenticator, Chain, Withdrawn};
use authgate_core::path::RequestPath;

use super::routes::Found;
use super::stream_end::{StreamEnd, StreamRule};
use super::stream_facts::{ApplicationReason, StreamFacts, StreamPrincipal};
use super::{Proxy, Route, Target};

/// How a stream goes on.
#[derive(Debug)]
pub(super) enum Readmission {
    /// Also if its credential is not accepted any more: `streams = "keep"`.
    Kept,
    /// It has no credential that the gateway has accepted.
    Unchecked,
    /// As long as this authenticator accepts its credential.
    Checked(Rc<Authenticator>),
}

impl Proxy {
    /// How a stream goes on that this proxy has admitted by this route.
    pub(super) fn admitted(&self, route: &Route, facts: &StreamFacts) -> Readmission {
        match (route.settings.streams, &facts.principal) {
            (StreamRule::Keep, _) => Readmission::Kept,
            (StreamRule::End, StreamPrincipal::User(user, _)) => {
                let authenticator = self.authenticators.get(&user.user_info().authenticator);
                authenticator.map_or(Readmission::Unchecked, |one| Readmission::Checked(Rc::clone(one)))
            }
            (StreamRule::End, StreamPrincipal::Anonymous | StreamPrincipal::ByApplication(_)) => Readmission::Unchecked,
        }
    }

    /// Whether this configuration would admit the stream: its route is still there, the route that its request leads to now permits its user,
    /// and the authenticator that accepted its credential has the same key and store. The upstream may be another one.
    pub(super) fn readmit(&self, facts: &StreamFacts) -> Result<Readmission, StreamEnd> {
        let route = match self.route_of(facts) {
            Some(route) => route,
            None if facts.is_kept => return Ok(Readmission::Kept),
            None => return Err(StreamEnd::Route),
        };
        if route.settings.streams == StreamRule::Keep {
            return Ok(Readmission::Kept);
        }
        let policy = &route.settings.policy;
        let is_observed = route.settings.rollout.is_some();
        let (user, readmission) = match &facts.principal {
            StreamPrincipal::Anonymous if is_observed => return Ok(Readmission::Unchecked),
            StreamPrincipal::Anonymous => (None, Readmission::Unchecked),
            // The application still authenticates such requests, or the route requires nothing.
            StreamPrincipal::ByApplication(_) if is_observed || !policy.needs_identity() => {
                return Ok(Readmission::Unchecked);
            }
            StreamPrincipal::ByApplication(ApplicationReason::Unknown) if route.forwards_unknown() => {
                return Ok(Readmission::Unchecked);
            }
            StreamPrincipal::ByApplication(_) => return Err(StreamEnd::NotAdmitted),
            StreamPrincipal::User(user, basis) => {
                let name = &user.user_info().authenticator;
                let authenticator = self.authenticators.get(name).ok_or(Withdrawn::Authenticator)?;
                if !Rc::ptr_eq(authenticator.basis(), basis) {
                    authenticator.basis().still_accepts(user.user_info(), basis)?;
                }
                if !route.accepts_credentials_of(name) {
                    return Err(StreamEnd::NotAdmitted);
                }
                (Some(Arc::clone(user)), Readmission::Checked(Rc::clone(authenticator)))
            }
        };
        policy.permit(user).map_err(|_| StreamEnd::NotAdmitted)?;
        Ok(readmission)
    }

    /// The route that the stream's request leads to now. `None`: there is none, or the route that it began with is gone.
    fn route_of(&self, facts: &StreamFacts) -> Option<&Route> {
        let path = RequestPath::parse(facts.target.path()).ok()?;
        let Ok(Found::Route(id)) = self.table.find(&facts.host, path, &facts.method) else {
            return None;
        };
        let route = self.routes.get(id)?;
        if !matches!(route.target, Target::Upstream(_)) {
            return None;
        }
        // A more specific route may have been added.
        let is_left = *route.metrics.label() == facts.route || self.routes.has_label(&facts.route);
        is_left.then_some(route)
    }
}

impl Route {
    /// Whether it is public, or lists this authenticator.
    fn accepts_credentials_of(&self, authenticator: &str) -> bool {
        self.chain.is_none() || self.has_authenticator(|own| **own.name() == *authenticator)
    }

    /// Whether it forwards a credential that no record knows.
    fn forwards_unknown(&self) -> bool {
        let may_forward = self.settings.policy.permit_unknown().is_some();
        may_forward && self.has_authenticator(|own| own.settings().kind.forwards_unknown())
    }

    fn has_authenticator(&self, is_it: impl FnMut(&Authenticator) -> bool) -> bool {
        self.chain.iter().flat_map(Chain::authenticators).any(is_it)
    }
}
