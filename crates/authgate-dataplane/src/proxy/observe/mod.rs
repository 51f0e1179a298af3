//! Observed requests: the application authenticates them, and the gateway compares its own decision with the response.
//!
//! An observed request goes on as it came, with a permit that has no identity. On a route with `mode = "observe"` the evaluation is a task of
//! its own: the request does not wait for it. On a route that is enforced for a share of users, the evaluation comes first, because it finds
//! the user. Nothing here can change the response.

mod comparison;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use authgate_auth::{RequestFacts, Thumbprint};
use authgate_core::outbound::peer::Peer;
use authgate_core::outbound::request_id::RequestId;
use authgate_core::policy::rollout::{Rollout, Subject};
use authgate_http::concurrency::ConcurrencyLimit;
use authgate_http::log_throttle::LogThrottle;
use authgate_http::upstream::Forwarded;
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue, Method, Uri};
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::warn;

use self::comparison::{Kind, Ours, Theirs};
use super::authorization::Authorization;
use super::host::Host;
use super::rejection::Rejection;
use super::websocket::{Handshake, WebSocketRequest};
use super::{Client, Route};

/// The most evaluations of observed requests at once, for each worker. Beyond it, requests are not evaluated.
const MAX_EVALUATIONS: usize = 1024;
/// The deadline of one evaluation, over all authenticators. Each of them has a shorter one of its own.
const DEADLINE: Duration = Duration::from_secs(30);

/// The admission of a request of a route that is enforced for none or some of its users.
pub(super) struct RolloutAdmission {
    pub(super) websocket: Option<WebSocketRequest>,
    pub(super) authorization: Authorization,
    /// `Some` exactly if the permit is that of an observed request.
    pub(super) observation: Option<Box<Observation>>,
}

/// Admits a request of such a route.
pub(super) async fn admit(
    route: &Route,
    rollout: Rollout,
    head: &mut Parts,
    host: &Host,
    client: &Client,
) -> RolloutAdmission {
    let handshake = Handshake::of(head);
    let mut copy = RequestCopy {
        method: head.method.clone(),
        uri: head.uri.clone(),
        headers: head.headers.clone(),
        extensions: head.extensions.clone(),
        host: host.sent.clone(),
        peer: client.peer.clone(),
        certificate: client.certificate,
        handshake,
    };
    let evaluation = if rollout.is_observe_only() {
        Evaluation::NotBegun(copy)
    } else {
        let (websocket, authorization) = copy.evaluate(route).await;
        if enforces(rollout, route, &authorization, &head.headers) {
            head.headers = copy.headers;
            return RolloutAdmission {
                websocket,
                authorization,
                observation: None,
            };
        }
        Evaluation::Done(authorization)
    };
    RolloutAdmission {
        websocket: handshake.map(|handshake| WebSocketRequest {
            handshake,
            offers_gateway_subprotocol: false,
        }),
        authorization: Authorization {
            user: None,
            decision: Ok(rollout.permit_observed()),
        },
        observation: Some(Box::new(Observation {
            route: route.clone(),
            evaluation,
        })),
    }
}

/// Whether a request with this result is enforced.
fn enforces(rollout: Rollout, route: &Route, authorization: &Authorization, headers: &HeaderMap) -> bool {
    let user = match (&authorization.user, &authorization.decision) {
        (Some(user), _) => Some(&user.user_info().id),
        (None, Err(Rejection::Refused(refused))) => refused.user.as_deref(),
        (None, Ok(_) | Err(_)) => None,
    };
    if let Some(user) = user {
        return rollout.enforces(Subject::User(user));
    }
    let sent = route.chain.as_ref().and_then(|chain| match &authorization.decision {
        Err(Rejection::Refused(refused)) => chain.credential_of(refused.by, headers),
        Err(Rejection::Unavailable(failed)) => {
            let by = chain
                .authenticators()
                .position(|one| *one.name() == failed.authenticator);
            chain.credential_of(by?, headers)
        }
        Ok(_) | Err(_) => None,
    });
    rollout.enforces(sent.as_deref().map_or(Subject::NoCredential, Subject::Credential))
}

/// The parts of a request that its evaluation reads.
#[derive(Debug)]
struct RequestCopy {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
    host: HeaderValue,
    peer: Peer,
    certificate: Option<Thumbprint>,
    handshake: Option<Handshake>,
}

impl RequestCopy {
    /// Evaluates the request as if its route were enforced.
    async fn evaluate(&mut self, route: &Route) -> (Option<WebSocketRequest>, Authorization) {
        match route.take_websocket_credential(self.handshake, &mut self.headers) {
            Ok(websocket) => {
                let request = RequestFacts {
                    method: &self.method,
                    uri: &self.uri,
                    headers: &self.headers,
                    extensions: &self.extensions,
                    host: &self.host,
                    peer: &self.peer,
                    certificate: self.certificate.as_ref(),
                    is_repeated: false,
                };
                (websocket, route.authorize(&request).await)
            }
            Err(rejection) => (
                None,
                Authorization {
                    user: None,
                    decision: Err(rejection),
                },
            ),
        }
    }
}

/// A request that is observed.
#[derive(Debug)]
pub(super) struct Observation {
    route: Route,
    evaluation: Evaluation,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "each is in the box of its observation")]
enum Evaluation {
    NotBegun(RequestCopy),
    Done(Authorization),
}

impl Observation {
    /// Evaluates the request beside its way to the upstream, and compares when the response is there.
    pub(super) fn start(self, observer: &Rc<Observer>, head: &Parts, id: &RequestId) -> Comparison {
        let (response, theirs) = oneshot::channel();
        let described = DescribedRequest {
            method: head.method.clone(),
            target: head.uri.clone(),
            id: id.clone(),
        };
        let observer = Rc::clone(observer);
        spawn_local(async move {
            let route = self.route.clone();
            let ours = self.decide(&observer.evaluations).await;
            let ours = Ours::of(ours, &route.settings.refusal_format, &described.id);
            let theirs = theirs.await.ok();
            observer.record(&route, &described, &ours, theirs.as_ref());
        });
        Comparison { response }
    }

    /// What the gateway would decide. It ends before [`DEADLINE`].
    pub(super) async fn decide(self, evaluations: &ConcurrencyLimit) -> Authorization {
        let mut copy = match self.evaluation {
            Evaluation::Done(authorization) => return authorization,
            Evaluation::NotBegun(copy) => copy,
        };
        let evaluated = match evaluations.try_acquire() {
            Some(_permit) => timeout(DEADLINE, copy.evaluate(&self.route)).await.ok(),
            None => None,
        };
        match evaluated {
            Some((_, authorization)) => authorization,
            None => Authorization {
                user: None,
                decision: Err(Rejection::Overloaded),
            },
        }
    }
}

/// A comparison that waits for the response. Dropping it reports that there is none.
#[derive(Debug)]
pub(super) struct Comparison {
    response: oneshot::Sender<Theirs>,
}

impl Comparison {
    /// The upstream has responded.
    pub(super) fn answered(self, forwarded: &Forwarded) {
        let theirs = match forwarded {
            Forwarded::Response(response) => Theirs::of(response.status(), response.headers()),
            Forwarded::Upgraded(response, ..) => Theirs::of(response.status(), response.headers()),
        };
        // The task is gone only when the worker stops.
        let _ = self.response.send(theirs);
    }
}

/// The request in the log.
struct DescribedRequest {
    method: Method,
    target: Uri,
    id: RequestId,
}

/// What the observations of one worker share.
#[derive(Debug)]
pub(super) struct Observer {
    pub(super) evaluations: ConcurrencyLimit,
    /// For each kind of difference on each route: limits how often it is logged. Bounded by the routes and the fixed lists of labels.
    differences: RefCell<HashMap<(Arc<str>, Kind), LogThrottle>>,
}

impl Default for Observer {
    fn default() -> Self {
        Self {
            evaluations: ConcurrencyLimit::new(MAX_EVALUATIONS),
            differences: RefCell::default(),
        }
    }
}

impl Observer {
    fn record(&self, route: &Route, request: &DescribedRequest, ours: &Ours, theirs: Option<&Theirs>) {
        let kind = Kind::of(ours, theirs);
        route.metrics.record_observation(kind.ours, kind.theirs, kind.reason);
        if !kind.is_difference() {
            return;
        }
        let label = route.metrics.label();
        let mut differences = self.differences.borrow_mut();
        let throttle = differences.entry((Arc::clone(label), kind)).or_default();
        let Some(times) = throttle.note() else { return };
        warn!(
            route = &**label,
            ours = kind.ours,
            theirs = theirs.map(|theirs| theirs.status.as_u16()),
            reason = kind.reason,
            detail = ours.detail.as_deref(),
            challenge.ours = ours.challenge.as_deref(),
            challenge.theirs = theirs.and_then(Theirs::shown_challenge),
            user.id = ours.user.as_ref().map(|user| user.user_info().id.as_str()),
            http.method = request.method.as_str(),
            http.target = request.target.path(),
            request.id = request.id.as_str(),
            times,
            "the application has answered an observed request otherwise than the gateway would"
        );
    }
}
