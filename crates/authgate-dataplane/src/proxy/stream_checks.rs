//! Checks the credentials of open streams: one task of each worker, with one timer.
//!
//! It waits until an item of a store changes, or until time has passed, and asks the authenticators in force about the credentials that
//! [`HeldCredentials`](authgate_auth::HeldCredentials) finds due. A credential that is refused or has expired ends its streams. One that
//! cannot be checked is asked about again: an outage ends no stream.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use authgate_auth::dependencies::{ChangeWatch, Changed};
use authgate_auth::{Authenticator, CredentialId, EvaluationError, Now, Question, Settled, Standing};
use authgate_core::credential::Refusal;
use authgate_core::identity::Identity;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

use super::Proxy;
use super::stream_end::StreamEnd;
use super::streams::{ENTRIES_PER_TURN, Streams};

/// The shortest time between two looks at what has changed: an import of many tokens does not wake the worker for each.
const PAUSE: Duration = Duration::from_millis(10);

/// An answer to a [`Question`].
struct Answer {
    id: CredentialId,
    asked: Rc<Authenticator>,
    decided: Result<Result<Standing, Refusal>, EvaluationError>,
}

type Asking = Pin<Box<dyn Future<Output = Answer>>>;

impl Streams {
    /// Checks the credentials of this worker's streams; never returns. It must not be a separate task: a panic in it ends the worker.
    pub async fn check_credentials(&self, mut changes: ChangeWatch) -> Infallible {
        let mut asking: FuturesUnordered<Asking> = FuturesUnordered::new();
        let mut answers: usize = 0;
        loop {
            if self.held().is_empty() && asking.is_empty() {
                // Changes are recorded meanwhile. A credential that is registered has a decision that is valid at that moment.
                self.registered().await;
            }
            self.apply_changes(&mut changes).await;
            let looked = Instant::now();
            self.pass_time().await;
            if let Some(proxy) = self.in_force() {
                self.ask(&proxy, &mut asking);
            }
            let timer = self.held().sleep(Now::read());
            let woken = async {
                let timer = async {
                    match timer {
                        Some(timer) => sleep(timer).await,
                        None => pending().await,
                    }
                };
                let changed = async {
                    sleep_until(looked + PAUSE).await;
                    changes.changed().await;
                };
                tokio::select! {
                    () = timer => {}
                    () = changed => {}
                    () = self.registered() => {}
                }
            };
            tokio::select! {
                biased;
                Some(answer) = asking.next() => {
                    self.settle(answer, &changes).await;
                    answers += 1;
                    if answers.is_multiple_of(ENTRIES_PER_TURN) {
                        yield_now().await;
                    }
                }
                () = woken => {}
            }
        }
    }

    /// Finds the credentials that depend on what has changed.
    async fn apply_changes(&self, changes: &mut ChangeWatch) {
        match changes.take() {
            None => {}
            Some(Changed::Slots(mut slots)) => {
                slots.sort_unstable();
                slots.dedup();
                for slot in slots {
                    while self.held().changed(slot) {
                        yield_now().await;
                    }
                }
            }
            Some(Changed::Any) => {
                let mut last = None;
                loop {
                    last = self.held().any_changed(changes.counters(), last);
                    if last.is_none() {
                        return;
                    }
                    yield_now().await;
                }
            }
        }
    }

    /// Ends the streams whose credential has expired, and finds the credentials that must be confirmed again.
    async fn pass_time(&self) {
        let Some(proxy) = self.in_force() else { return };
        let authenticator = |name: &Arc<str>| proxy.authenticators.get(name);
        let may_extend = |name: &Arc<str>| authenticator(name).is_some_and(|one| one.may_extend_credentials());
        let reports_changes = |name: &Arc<str>| authenticator(name).is_some_and(|one| one.reports_changes());
        let now = Now::read();
        let expired = self.held().expire(now, &may_extend);
        self.held().pass_time(now, &reports_changes);
        for id in expired {
            self.end_expired(id).await;
        }
    }

    /// Begins to ask the authenticators in force about the credentials that are due, as far as their number is not too large.
    fn ask(&self, proxy: &Proxy, asking: &mut FuturesUnordered<Asking>) {
        loop {
            let Some(Question {
                id,
                authenticator,
                held,
            }) = self.held().next_question()
            else {
                return;
            };
            // An authenticator that is gone has ended its streams, or is about to.
            let Some(authenticator) = proxy.authenticators.get(&authenticator) else {
                self.held().fail(id, Now::read());
                continue;
            };
            let asked = Rc::clone(authenticator);
            asking.push(Box::pin(async move {
                let decided = asked.check(&held, Now::read()).await;
                Answer { id, asked, decided }
            }));
        }
    }

    async fn settle(&self, answer: Answer, changes: &ChangeWatch) {
        let Answer { id, asked, decided } = answer;
        let Some(proxy) = self.in_force() else { return };
        let in_force = proxy.authenticators.get(asked.name());
        if in_force.is_none_or(|in_force| !Rc::ptr_eq(in_force, &asked)) {
            return self.held().repeat(id);
        }
        match decided {
            // It has changed between the look-up and now.
            Ok(Ok(standing)) if standing.is_outdated(changes.counters()) => self.held().repeat(id),
            Ok(Ok(standing)) => {
                let identity = Arc::clone(standing.identity());
                let user = self.held().settle(id, standing, Now::read());
                match user {
                    Settled::SameUser => {}
                    Settled::OtherUser => self.readmit_all(&proxy, id, &identity).await,
                }
            }
            Ok(Err(refusal)) => {
                let holders = self.held().refuse(id);
                self.end_all(id, &holders, StreamEnd::refused(&refusal)).await;
            }
            Err(error) => {
                debug!(authenticator = %asked.name(), reason = error.label(), "the credential of a stream could not be checked");
                let has_expired = self.held().fail(id, Now::read());
                if has_expired {
                    self.end_expired(id).await;
                }
            }
        }
    }

    /// What is known of a user has changed: the streams go on that their routes still admit.
    async fn readmit_all(&self, proxy: &Proxy, id: CredentialId, identity: &Arc<Identity>) {
        let holders = self.held().holders(id);
        for turn in holders.chunks(ENTRIES_PER_TURN) {
            for key in turn {
                if let Some(entry) = self.holder(*key, id) {
                    entry.set_user(identity);
                    self.readmit(proxy, *key, &entry);
                }
            }
            yield_now().await;
        }
    }

    async fn end_expired(&self, id: CredentialId) {
        let holders = self.held().forget(id);
        self.end_all(id, &holders, StreamEnd::Expired).await;
    }

    /// Ends these streams, which hold a credential.
    async fn end_all(&self, id: CredentialId, holders: &[usize], end: StreamEnd) {
        for turn in holders.chunks(ENTRIES_PER_TURN) {
            for key in turn {
                if let Some(entry) = self.holder(*key, id) {
                    self.end(&entry, *key, end);
                }
            }
            yield_now().await;
        }
    }
}
