//! The long-lived streams of a worker: WebSockets, server-sent events and gRPC. Each keeps the facts that it was admitted by, and ends
//! when the configuration in force would not admit them again.
//!
//! Other requests are not here: they are served to their end by the configuration that they began with.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use authgate_auth::{Basis, Chain};
use authgate_core::identity::Identity;
use authgate_core::policy::{Permit, Principal};
use authgate_http::upstream::body::BodyCanceller;
use authgate_http::upstream::response::{ResponseBodyError, UpstreamBody};
use bytes::Bytes;
use http::{Method, Uri};
use http_body::{Body, Frame};
use slab::Slab;
use tokio::task::yield_now;

use super::host::Host;
use super::outcome::Outcome;
use super::stream_end::StreamEnd;
use super::{Proxy, Route};

/// After this many entries, a search for streams lets other tasks of the worker run.
const ENTRIES_PER_TURN: usize = 256;

/// The open streams of one worker. Clones are the same streams. There are at most as many as connections and HTTP/2 streams.
#[derive(Clone, Default)]
pub struct Streams(Rc<Inner>);

#[derive(Default)]
struct Inner {
    open: RefCell<Slab<Rc<Entry>>>,
    /// The proxy of the configuration in force. Dangling before the first change of the configuration.
    in_force: RefCell<Weak<Proxy>>,
}

/// What a stream and [`Streams`] share.
struct Entry {
    facts: StreamFacts,
    /// Why the stream must end.
    end: Cell<Option<StreamEnd>>,
    /// The task of the stream. It is woken when `end` is set.
    waker: RefCell<Option<Waker>>,
    /// Of a response: its body. It is dropped as soon as the stream must end, also while the client reads nothing.
    body: RefCell<Option<UpstreamBody>>,
    /// Of a response: cancels the body of its request, which the server may still be reading.
    request_body: Option<BodyCanceller>,
}

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
    /// Who the request acts for.
    pub(super) principal: StreamPrincipal,
}

/// Who the request of a stream acts for.
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
    /// No record knows the credential.
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
    fn new(by_application: Option<ApplicationReason>, user: Option<&Arc<Identity>>, route: &Route) -> Self {
        let user = match (by_application, user) {
            (Some(reason), _) => return Self::ByApplication(reason),
            (None, None) => return Self::Anonymous,
            (None, Some(user)) => user,
        };
        let name = &user.user_info().authenticator;
        let mut authenticators = route.chain.iter().flat_map(Chain::authenticators);
        match authenticators.find(|authenticator| authenticator.name() == name) {
            Some(authenticator) => Self::User(Arc::clone(user), Rc::clone(authenticator.basis())),
            // It does not happen: a user comes from an authenticator of the route.
            None => Self::Anonymous,
        }
    }
}

/// An open stream. Dropping it removes it from the [`Streams`].
pub(super) struct Stream {
    streams: Streams,
    key: usize,
    entry: Rc<Entry>,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams")
            .field("open", &self.0.open.borrow().len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("facts", &self.entry.facts)
            .field("end", &self.entry.end)
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// Registers a stream that this proxy has admitted. Another configuration may have come into force since its request began. If that
    /// would not admit the stream, the stream ends at once. `routed_by`: the method that the route was found by, if it is another one than
    /// that of the request.
    pub(super) fn open_stream(
        self: &Rc<Self>,
        route: &Route,
        host: &Host,
        routed_by: Option<Method>,
        by_application: Option<ApplicationReason>,
        outcome: &Outcome,
        request_body: Option<BodyCanceller>,
    ) -> Stream {
        let (method, target) = outcome.request().cloned().unwrap_or_default();
        let entry = Rc::new(Entry {
            facts: StreamFacts {
                host: Rc::clone(&host.name),
                method: routed_by.unwrap_or(method),
                target,
                route: Arc::clone(route.metrics.label()),
                principal: StreamPrincipal::new(by_application, outcome.user(), route),
            },
            end: Cell::new(None),
            waker: RefCell::new(None),
            body: RefCell::new(None),
            request_body,
        });
        let streams = self.streams.clone();
        let in_force = streams.0.in_force.borrow().upgrade();
        if let Some(proxy) = in_force.filter(|proxy| !Rc::ptr_eq(proxy, self)) {
            proxy.end_unless_admitted(&entry);
        }
        let key = streams.0.open.borrow_mut().insert(Rc::clone(&entry));
        Stream { streams, key, entry }
    }

    /// Makes this proxy the one of the configuration in force, and ends the streams that it would not admit.
    pub async fn take_over_streams(self: &Rc<Self>) {
        let Inner { open, in_force } = &*self.streams.0;
        in_force.replace(Rc::downgrade(self));
        let mut key = 0;
        // Streams that open meanwhile need no search: `open_stream` has compared them with this configuration.
        while key < open.borrow().capacity() {
            for _ in 0..ENTRIES_PER_TURN {
                let entry = open.borrow().get(key).map(Rc::clone);
                if let Some(entry) = entry {
                    self.end_unless_admitted(&entry);
                }
                key += 1;
            }
            yield_now().await;
        }
    }

    fn end_unless_admitted(&self, entry: &Entry) {
        if let Err(end) = self.readmit(&entry.facts) {
            entry.end(end);
        }
    }
}

impl Entry {
    /// Makes the stream end. Its connection to the upstream is closed now, the task of a WebSocket closes its own.
    fn end(&self, end: StreamEnd) {
        if self.end.replace(Some(end)).is_some() {
            return;
        }
        drop(self.body.take());
        if let Some(request_body) = &self.request_body {
            request_body.cancel();
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wait(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }
}

impl Stream {
    /// Why the stream must end, if it must.
    pub(super) fn end(&self) -> Option<StreamEnd> {
        self.entry.end.get()
    }

    /// Ready when the stream must end. It wakes the task that polled last.
    pub(super) fn poll_end(&self, cx: &Context<'_>) -> Poll<StreamEnd> {
        if let Some(end) = self.end() {
            return Poll::Ready(end);
        }
        self.entry.wait(cx);
        Poll::Pending
    }

    /// Ready when the stream must end.
    pub(super) async fn ended(&self) -> StreamEnd {
        poll_fn(|cx| self.poll_end(cx)).await
    }

    /// Gives the stream the body of its response.
    pub(super) fn set_body(&self, body: UpstreamBody) {
        // Of a stream that has ended meanwhile, the body is dropped.
        if self.end().is_none() {
            self.entry.body.replace(Some(body));
        }
    }

    /// The next frame of the body; or the reason why the stream must end. It wakes the task that polled last.
    #[expect(clippy::type_complexity, reason = "the type of `Body::poll_frame`, with an end")]
    pub(super) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Result<Frame<Bytes>, ResponseBodyError>>, StreamEnd>> {
        if let Poll::Ready(end) = self.poll_end(cx) {
            return Poll::Ready(Err(end));
        }
        match &mut *self.entry.body.borrow_mut() {
            Some(body) => Poll::Ready(Ok(ready!(Pin::new(body).poll_frame(cx)))),
            None => Poll::Ready(Ok(None)),
        }
    }

    /// Whether the body has ended by itself.
    pub(super) fn is_body_at_end(&self) -> bool {
        let body = self.entry.body.borrow();
        self.end().is_none() && body.as_ref().is_none_or(Body::is_end_stream)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.0.open.borrow_mut().try_remove(self.key);
    }
}
