//! The long-lived streams of a worker: WebSockets, server-sent events and gRPC. Each keeps the facts that it was admitted by, and ends
//! when the configuration in force would not admit them again. It keeps its credential too, and ends when that is not accepted any more
//! (`stream_checks.rs`). With `streams = "keep"`, the gateway ends it for neither reason.
//!
//! Other requests are not here: they are served to their end by the configuration that they began with.

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use authgate_auth::{CredentialId, HeldCredential, HeldCredentials, Now};
use authgate_core::identity::Identity;
use authgate_core::outbound::identity::CredentialMode;
use authgate_core::policy::{Permit, Principal};
use authgate_http::upstream::body::BodyCanceller;
use authgate_http::upstream::response::{ResponseBodyError, UpstreamBody};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use http_body::{Body, Frame};
use slab::Slab;
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::host::Host;
use super::outcome::Outcome;
use super::readmission::Readmission;
use super::stream_end::{StreamEnd, StreamRule};
use super::stream_facts::{ApplicationReason, StreamFacts, StreamPrincipal};
use super::{Authenticators, Proxy, Route};
use crate::telemetry::metrics::Metrics;

/// After this many entries, a search for streams lets other tasks of the worker run.
pub(super) const ENTRIES_PER_TURN: usize = 256;

/// The open streams of one worker. Clones are the same streams. There are at most as many as connections and HTTP/2 streams.
#[derive(Clone)]
pub struct Streams(Rc<Inner>);

struct Inner {
    open: RefCell<Slab<Rc<Entry>>>,
    /// The proxy of the configuration in force. Dangling before the worker serves, and after it.
    in_force: RefCell<Weak<Proxy>>,
    /// Its authenticators.
    authenticators: RefCell<Rc<Authenticators>>,
    /// The credentials that are checked, by the keys in `open`.
    held: RefCell<HeldCredentials>,
    /// Wakes the task that checks credentials: one was registered.
    registered: Notify,
    metrics: Arc<Metrics>,
}

/// What a stream and [`Streams`] share.
pub(super) struct Entry {
    facts: RefCell<StreamFacts>,
    /// The credential of its user.
    credential: Option<Rc<HeldCredential>>,
    /// The credential among those that are checked, if it is one of them.
    checked: Cell<Option<CredentialId>>,
    /// Why the stream must end.
    end: Cell<Option<StreamEnd>>,
    /// The task of the stream. It is woken when `end` is set.
    waker: RefCell<Option<Waker>>,
    /// Of a response: its body. It is dropped as soon as the stream must end, also while the client reads nothing.
    body: RefCell<Option<UpstreamBody>>,
    /// Of a response: cancels the body of its request, which the server may still be reading.
    request_body: Option<BodyCanceller>,
}

/// What a request must keep in case it becomes a stream: its credential, and why the application authenticates it, if it does.
pub(super) struct StreamOrigin {
    by_application: Option<ApplicationReason>,
    /// The value of the header with the credential. A clone shares the bytes.
    credential: Option<HeaderValue>,
}

impl fmt::Debug for StreamOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamOrigin")
            .field("by_application", &self.by_application)
            .finish_non_exhaustive()
    }
}

impl StreamOrigin {
    /// `headers`: those of the request, before it is prepared for the upstream. A credential that is not forwarded is taken out of them.
    #[inline]
    pub(super) fn of(permit: &Permit, route: &Route, headers: &mut HeaderMap) -> Self {
        const TAKEN: HeaderValue = HeaderValue::from_static("");
        let credential = match permit.principal() {
            Principal::User(user) => {
                let authenticator = route.authenticator(&user.user_info().authenticator);
                let value = authenticator.and_then(|authenticator| headers.get_mut(authenticator.header()));
                value.map(|value| match route.settings.rules.credential {
                    CredentialMode::Keep => value.clone(),
                    CredentialMode::Opaque | CredentialMode::Remove => mem::replace(value, TAKEN),
                })
            }
            Principal::Public | Principal::Anonymous | Principal::Unknown | Principal::Observed => None,
        };
        Self {
            by_application: ApplicationReason::of(permit),
            credential,
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
        origin: StreamOrigin,
        outcome: &Outcome,
        request_body: Option<BodyCanceller>,
    ) -> Stream {
        let (method, target) = outcome.request().cloned().unwrap_or_default();
        let StreamOrigin {
            by_application,
            credential,
        } = origin;
        let principal = StreamPrincipal::new(by_application, outcome.user(), route);
        let credential = match (&principal, credential) {
            (StreamPrincipal::User(user, _), Some(value)) => {
                let authenticator = route.authenticator(&user.user_info().authenticator);
                authenticator.and_then(|authenticator| authenticator.hold(&value))
            }
            (StreamPrincipal::User(..), None) | (StreamPrincipal::Anonymous | StreamPrincipal::ByApplication(_), _) => {
                None
            }
        };
        let entry = Rc::new(Entry {
            facts: RefCell::new(StreamFacts {
                host: Rc::clone(&host.name),
                method: routed_by.unwrap_or(method),
                target,
                route: Arc::clone(route.metrics.label()),
                principal,
                is_kept: route.settings.streams == StreamRule::Keep,
            }),
            credential: credential.map(Rc::new),
            checked: Cell::new(None),
            end: Cell::new(None),
            waker: RefCell::new(None),
            body: RefCell::new(None),
            request_body,
        });
        let streams = self.streams.clone();
        let key = streams.0.open.borrow_mut().insert(Rc::clone(&entry));
        let in_force = streams.in_force().filter(|proxy| !Rc::ptr_eq(proxy, self));
        match in_force {
            Some(proxy) => streams.readmit(&proxy, key, &entry),
            None => {
                let admitted = self.admitted(route, &entry.facts.borrow());
                streams.apply(admitted, key, &entry);
            }
        }
        Stream { streams, key, entry }
    }

    /// Makes this proxy the one of the configuration in force. The worker calls it when it begins to serve. Returns the authenticators of the
    /// previous one.
    pub fn put_in_force(self: &Rc<Self>) -> Rc<Authenticators> {
        let Inner {
            in_force,
            authenticators,
            ..
        } = &*self.streams.0;
        in_force.replace(Rc::downgrade(self));
        authenticators.replace(Rc::clone(&self.authenticators))
    }

    /// Makes this proxy the one of the configuration in force, and ends the streams that it would not admit. Credentials whose authenticator
    /// is another one now are checked again.
    pub async fn take_over_streams(self: &Rc<Self>) {
        let Inner { open, held, .. } = &*self.streams.0;
        let previous = self.put_in_force();
        for (name, authenticator) in &*self.authenticators {
            let before = previous.get(name);
            if before.is_none_or(|before| !Rc::ptr_eq(before, authenticator)) {
                while held.borrow_mut().recheck(name) {
                    yield_now().await;
                }
            }
        }
        drop(previous);
        self.streams.0.registered.notify_one();
        let mut key = 0;
        // Streams that open meanwhile need no search: `open_stream` has compared them with this configuration.
        while key < open.borrow().capacity() {
            for _ in 0..ENTRIES_PER_TURN {
                let entry = open.borrow().get(key).map(Rc::clone);
                if let Some(entry) = entry {
                    self.streams.readmit(self, key, &entry);
                }
                key += 1;
            }
            yield_now().await;
        }
    }
}

impl Streams {
    /// Makes the streams of a worker. `metrics` are those of the process.
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        Self(Rc::new(Inner {
            open: RefCell::default(),
            in_force: RefCell::default(),
            authenticators: RefCell::default(),
            held: RefCell::default(),
            registered: Notify::new(),
            metrics: Arc::clone(metrics),
        }))
    }

    /// The proxy of the configuration in force, while the worker serves.
    pub(super) fn in_force(&self) -> Option<Rc<Proxy>> {
        self.0.in_force.borrow().upgrade()
    }

    pub(super) fn held(&self) -> RefMut<'_, HeldCredentials> {
        self.0.held.borrow_mut()
    }

    /// Waits until a credential is registered that may have to be checked.
    pub(super) async fn registered(&self) {
        self.0.registered.notified().await;
    }

    /// The stream at this key, if it holds this credential.
    pub(super) fn holder(&self, key: usize, id: CredentialId) -> Option<Rc<Entry>> {
        let open = self.0.open.borrow();
        let entry = open.get(key).filter(|entry| entry.checked.get() == Some(id));
        entry.map(Rc::clone)
    }

    /// Ends the stream if this configuration would not admit it.
    pub(super) fn readmit(&self, proxy: &Proxy, key: usize, entry: &Entry) {
        let readmitted = proxy.readmit(&entry.facts.borrow());
        match readmitted {
            Ok(readmission) => self.apply(readmission, key, entry),
            Err(end) => self.end(entry, key, end),
        }
    }

    /// Begins or ceases to check the credential of a stream.
    fn apply(&self, readmission: Readmission, key: usize, entry: &Entry) {
        let mut facts = entry.facts.borrow_mut();
        facts.is_kept = matches!(readmission, Readmission::Kept);
        match (readmission, &entry.credential, &facts.principal) {
            (Readmission::Checked(authenticator), Some(credential), StreamPrincipal::User(user, _)) => {
                if entry.checked.get().is_some() || entry.end.get().is_some() {
                    return;
                }
                let now = Now::read();
                let recall = || authenticator.recall(credential, now);
                let id = self
                    .held()
                    .hold(authenticator.name(), credential, user, key, now, recall);
                entry.checked.set(Some(id));
                self.0.registered.notify_one();
            }
            (Readmission::Checked(_) | Readmission::Kept | Readmission::Unchecked, _, _) => self.release(key, entry),
        }
    }

    fn release(&self, key: usize, entry: &Entry) {
        if let Some(id) = entry.checked.take() {
            self.held().release(id, key);
        }
    }

    /// Makes a stream end.
    pub(super) fn end(&self, entry: &Entry, key: usize, end: StreamEnd) {
        self.release(key, entry);
        if entry.end(end) {
            self.0.metrics.count_stream_end(end.label_value());
        }
    }
}

impl Entry {
    /// What is known of its user now, by the last decision about its credential.
    pub(super) fn set_user(&self, identity: &Arc<Identity>) {
        if let StreamPrincipal::User(user, _) = &mut self.facts.borrow_mut().principal {
            *user = Arc::clone(identity);
        }
    }

    /// Makes the stream end. Its connection to the upstream is closed now, the task of a WebSocket closes its own. Returns
    /// `false` if it had to end already.
    fn end(&self, end: StreamEnd) -> bool {
        if self.end.get().is_some() {
            return false;
        }
        self.end.set(Some(end));
        drop(self.body.take());
        if let Some(request_body) = &self.request_body {
            request_body.cancel();
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        true
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
        self.streams.release(self.key, &self.entry);
        self.streams.0.open.borrow_mut().try_remove(self.key);
    }
}
