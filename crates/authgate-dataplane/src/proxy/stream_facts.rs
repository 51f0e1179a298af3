//! [`StreamFacts`]: what a stream was admitted by. A later configuration decides by them whether it goes on.

use std::rc::Rc;
use std::sync::Arc;

use authgate_auth::{Authenticator, Basis, Chain};
use authgate_core::identity::Identity;
use authgate_core::policy::{Permit, Principal};
use http::{Method, Uri};

use super::Route;

/// The facts that a stream was admitted by. They keep no snapshot alive.
#[derive(Debug)]
pub(super) struct StreamFacts {
    /// As in [`Host::name`].
    pub(super) host: Rc<str>,
    /// The method that the route was found by.
    pub(super) method: Method,
    /// The target of its request.
    pub(super) target: Uri,
    /// The label of its route.
    pub(super) route: Arc<str>,
    /// The user that the request acts for, if there is one.
    pub(super) principal: StreamPrincipal,
    /// Whether the last configuration that has decided about it has `streams = "keep"`.
    pub(super) is_kept: bool,
}

/// The user that the request of a stream acts for, or why there is none.
#[derive(Debug)]
pub(super) enum StreamPrincipal {
    /// The route is public, or the request had no credential.
    Anonymous,
    /// A user, with what the acceptance of the credential was based on.
    User(Arc<Identity>, Rc<Basis>),
    /// The application has authenticated the request.
    ByApplication(ApplicationReason),
}

/// Why the application authenticates a request, and not the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApplicationReason {
    /// No store has the credential.
    Unknown,
    /// The request is observed.
    Observed,
}

impl ApplicationReason {
    /// `None`: the gateway has authenticated the request, or it has no credential.
    pub(super) fn of(permit: &Permit) -> Option<Self> {
        match permit.principal() {
            Principal::Public | Principal::Anonymous | Principal::User(_) => None,
            Principal::Unknown => Some(Self::Unknown),
            Principal::Observed => Some(Self::Observed),
        }
    }
}

impl StreamPrincipal {
    pub(super) fn new(by_application: Option<ApplicationReason>, user: Option<&Arc<Identity>>, route: &Route) -> Self {
        let user = match (by_application, user) {
            (Some(reason), _) => return Self::ByApplication(reason),
            (None, None) => return Self::Anonymous,
            (None, Some(user)) => user,
        };
        match route.authenticator(&user.user_info().authenticator) {
            Some(authenticator) => Self::User(Arc::clone(user), Rc::clone(authenticator.basis())),
            // It does not happen: a user comes from an authenticator of the route.
            None => Self::Anonymous,
        }
    }
}

impl Route {
    /// The authenticator of this name, if it is one of the route's.
    pub(super) fn authenticator(&self, name: &Arc<str>) -> Option<&Authenticator> {
        let mut authenticators = self.chain.iter().flat_map(Chain::authenticators);
        authenticators.find(|authenticator| Arc::ptr_eq(authenticator.name(), name) || authenticator.name() == name)
    }
}
