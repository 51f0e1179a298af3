//! `POST /revoke`: revokes a token, a user's credentials or a key, in the shape of RFC 7009.
//!
//! A response with status 200 means that every store has acknowledged the revocation, or that no authenticator accepts the token. A client
//! that gets another status must assume that the token is still valid.

mod answer;
mod form;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use authgate_auth::store::{SharedStore, StoreKind};
use authgate_auth::{Irrevocable, KindSettings, Now, Revocable, RevocationKind, SharedAuthenticator};
use authgate_core::secret::Secret;
use authgate_dataplane::telemetry::metrics::Metrics;
use authgate_http::node::Node;
use bytes::Bytes;
use http::Response;
use http::request::Parts;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, info, warn};

pub(super) use self::answer::Problem;
use self::answer::{Outcome, ProblemKind};
use self::form::{Form, Target};
use self::write::{Order, Write, Written};
use crate::provisioning::time::unix_now;
use crate::provisioning::{LongExpired, Replication, Revocation};

/// Revocations that are written at the same time; further ones wait.
const CONCURRENT: usize = 4;
/// How long a request waits for its turn, and then for its stores.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The turns of requests that write; clones share them.
#[derive(Debug, Clone)]
pub struct RevocationTurns(Arc<Semaphore>);

impl Default for RevocationTurns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CONCURRENT)))
    }
}

/// What can be revoked under one configuration.
#[derive(Debug, Default)]
pub struct Revoker {
    /// Every authenticator.
    pub authenticators: Vec<Arc<SharedAuthenticator>>,
    /// Every store.
    pub stores: Vec<Arc<SharedStore>>,
}

/// What is revoked, or that there is nothing to revoke.
struct Done {
    kind: RevocationKind,
    /// The names of the stores that were written to.
    stores: String,
    written: Written,
}

/// The answers of authenticators about a token.
#[derive(Default)]
struct Accepted {
    /// The ids by which it is revoked, each with the name of a store and the end of the token.
    by_id: Vec<(Arc<str>, String, Option<i64>)>,
    /// An authenticator has verified it, and does not look for its revocation.
    irrevocable: Option<Problem>,
    /// An authenticator could not verify it.
    failed: Option<Problem>,
}

impl Accepted {
    fn is_verified(&self) -> bool {
        !self.by_id.is_empty() || self.irrevocable.is_some()
    }
}

impl Revoker {
    /// Answers a request that may revoke. A client that disconnects does not stop it.
    pub(super) async fn answer(
        self: Arc<Self>,
        head: &Parts,
        body: Incoming,
        client: Node,
        turns: RevocationTurns,
        metrics: Arc<Metrics>,
    ) -> Response<Full<Bytes>> {
        let form = form::read(&head.headers, body).await;
        let form = form.and_then(|form| form::parse(&form));
        let revoking = async move {
            let done = match form {
                Ok(form) => self.revoke(form, &turns).await,
                Err(problem) => Err(problem),
            };
            record(&done, &client, &metrics);
            match done {
                Ok(_) => answer::done(),
                Err(problem) => problem.response(),
            }
        };
        tokio::spawn(revoking).await.unwrap_or_else(|problem| {
            error!(reason = %problem, "a revocation has stopped unexpectedly");
            let detail = "The revocation has stopped unexpectedly. The log has the reason.";
            Problem::new(ProblemKind::Internal, detail).response()
        })
    }

    async fn revoke(&self, form: Form, turns: &RevocationTurns) -> Result<Done, Problem> {
        let now = unix_now();
        let store = match &form.store {
            None => None,
            Some(name) => Some(self.named_store(name)?),
        };
        let (kind, revocation) = match form.target {
            Target::Token(token) => return self.revoke_token(&token, store, turns).await,
            Target::User { id, before } => {
                let revocation = Revocation::of_user(id, before, now);
                let revocation = revocation.map_err(|problem| Problem::invalid(format!("`before`: {problem}.")))?;
                (RevocationKind::User, revocation)
            }
            Target::Jti { jti, expires } => match Revocation::of_jti(jti, expires, self.largest_leeway(), now) {
                Ok(revocation) => (RevocationKind::Jti, revocation),
                Err(LongExpired) => return Ok(Done::nothing(RevocationKind::Jti)),
            },
            Target::Kid { kid } => (RevocationKind::Kid, Revocation::Kid { kid }),
        };
        let stores = match store {
            Some(store) => vec![store],
            None => self.stores_that_check(kind)?,
        };
        let orders = stores.into_iter().map(|store| Order {
            store,
            write: Write::Revocation(revocation.clone()),
        });
        write(kind, orders.collect(), turns).await
    }

    /// JWTs come first, then the keys that stores have. An authorization server is asked last: it must not receive other tokens.
    async fn revoke_token(
        &self,
        token: &Secret<String>,
        store: Option<Arc<SharedStore>>,
        turns: &RevocationTurns,
    ) -> Result<Done, Problem> {
        let is_jwt = |kind: &KindSettings| kind.as_jwt().is_some();
        let accepted = self.accepted(token, is_jwt).await;
        if accepted.is_verified() {
            return self.revoke_by_id(accepted, store, turns).await;
        }
        let done = self.revoke_opaque(token, store.as_ref(), turns).await?;
        if done.written.is_known {
            return Ok(done);
        }
        let is_introspected = |kind: &KindSettings| matches!(kind, KindSettings::Introspection(_));
        let introspected = self.accepted(token, is_introspected).await;
        if introspected.is_verified() {
            return self.revoke_by_id(introspected, store, turns).await;
        }
        match accepted.failed.or(introspected.failed) {
            Some(problem) => Err(problem),
            None => Ok(done),
        }
    }

    /// Asks the authenticators of these kinds about a token.
    async fn accepted(&self, token: &Secret<String>, kinds: impl Fn(&KindSettings) -> bool) -> Accepted {
        let (mut accepted, now) = (Accepted::default(), Now::read());
        for authenticator in &self.authenticators {
            let settings = authenticator.settings();
            if !kinds(&settings.kind) {
                continue;
            }
            let name = &settings.name;
            match authenticator.revocable(token.expose().as_bytes(), now).await {
                Ok(Revocable::NotAccepted) => {}
                Ok(Revocable::ById { store, id, expires }) => accepted.by_id.push((store, id, expires)),
                Ok(Revocable::Irrevocable(why)) => accepted.irrevocable = Some(irrevocable(name, why)),
                Err(error) => {
                    let detail = format!("Authenticator {name} could not verify the token: {error}.");
                    accepted.failed = Some(Problem::new(ProblemKind::Unavailable, detail));
                }
            }
        }
        accepted
    }

    /// Revokes a token where its id is looked up, or in this store. It is enough that one authenticator looks for revocations: that others do
    /// not is a decision of the configuration.
    async fn revoke_by_id(
        &self,
        accepted: Accepted,
        named: Option<Arc<SharedStore>>,
        turns: &RevocationTurns,
    ) -> Result<Done, Problem> {
        if let (true, Some(problem)) = (accepted.by_id.is_empty(), accepted.irrevocable) {
            return Err(problem);
        }
        let (leeway, now) = (self.largest_leeway(), unix_now());
        let mut orders: Vec<Order> = Vec::new();
        for (store, id, expires) in accepted.by_id {
            let Ok(revocation) = Revocation::of_jti(id, expires, leeway, now) else {
                continue;
            };
            let store = match &named {
                Some(named) => Arc::clone(named),
                None => self.writable_store(&store)?,
            };
            let write = Write::Revocation(revocation);
            let is_new = |order: &Order| !(Arc::ptr_eq(&order.store, &store) && order.write == write);
            if orders.iter().all(is_new) {
                orders.push(Order { store, write });
            }
        }
        let done = write(RevocationKind::Jti, orders, turns).await?;
        // Another authenticator may accept it too.
        accepted.failed.map_or(Ok(done), Err)
    }

    /// Revokes a key in the stores that have it. It is an error if a database has it too: that authenticator still accepts the key.
    async fn revoke_opaque(
        &self,
        key: &Secret<String>,
        named: Option<&Arc<SharedStore>>,
        turns: &RevocationTurns,
    ) -> Result<Done, Problem> {
        let key = key.expose().as_bytes();
        let mut orders: Vec<Order> = Vec::new();
        // An authenticator that looks the key up in a database accepts it, or may accept it.
        let mut still_valid = None;
        let fronts = self.authenticators.iter().filter_map(|authenticator| {
            let KindSettings::Token(token) = &authenticator.settings().kind else {
                return None;
            };
            Some((&token.store, token.source.as_ref().map(|source| &source.store)))
        });
        let mut fronts: Vec<(Arc<SharedStore>, Option<&Arc<str>>)> = fronts
            .filter_map(|(store, source)| Some((Arc::clone(self.store(store)?), source)))
            .collect();
        if let Some(named) = named {
            fronts.retain(|(store, _)| Arc::ptr_eq(store, named));
            if fronts.is_empty() {
                fronts.push((Arc::clone(named), None));
            }
        }
        for (store, source) in fronts {
            if let Some(found) = store.token_in_database(key).await {
                match found {
                    Ok(None) => {}
                    Ok(Some(_)) => still_valid = Some(read_only(store.name(), ProblemKind::UnsupportedToken)),
                    Err(error) => still_valid = Some(Problem::new(ProblemKind::Unavailable, format!("{error}."))),
                }
                continue;
            }
            let digests = store.settings().digests().of(key).into_iter().flatten();
            let of_source = match source.and_then(|source| self.store(source)) {
                Some(source) => source.token_in_database(key).await,
                None => None,
            };
            let of_source = match of_source {
                None | Some(Ok(None)) => Ok(None),
                Some(Ok(Some(facts))) => Ok(facts.digest.map(|digest| (digest, facts.token))),
                Some(Err(error)) => Err(error.to_string()),
            };
            orders.push(Order {
                store,
                write: Write::Token {
                    digests: digests.collect(),
                    of_source,
                },
            });
        }
        let done = write(RevocationKind::Token, orders, turns).await?;
        still_valid.map_or(Ok(done), Err)
    }

    fn store(&self, name: &str) -> Option<&Arc<SharedStore>> {
        self.stores.iter().find(|store| **store.name() == *name)
    }

    /// The store that a form names.
    fn named_store(&self, name: &str) -> Result<Arc<SharedStore>, Problem> {
        if self.store(name).is_none() {
            let names: Vec<&str> = self.stores.iter().map(|store| &**store.name()).collect();
            let detail = format!("There is no store of this name. Known are: {}.", names.join(", "));
            return Err(Problem::invalid(detail));
        }
        self.writable_store(name)
    }

    fn writable_store(&self, name: &str) -> Result<Arc<SharedStore>, Problem> {
        match self.store(name) {
            Some(store) if matches!(store.settings().kind, StoreKind::Django(_)) => {
                Err(read_only(name, ProblemKind::Invalid))
            }
            Some(store) => Ok(Arc::clone(store)),
            // The configuration check refuses names of unknown stores.
            None => Err(Problem::invalid(format!("There is no store {name}."))),
        }
    }

    /// The stores in which authenticators look for revocations of this kind.
    fn stores_that_check(&self, kind: RevocationKind) -> Result<Vec<Arc<SharedStore>>, Problem> {
        let authenticators = self.authenticators.iter();
        let names = authenticators.filter_map(|authenticator| authenticator.settings().kind.checks(kind));
        let names: BTreeSet<&Arc<str>> = names.collect();
        if names.is_empty() {
            return Err(Problem::invalid(format!(
                "No authenticator looks for revocations of a {}. Set `revocation` of [authenticators.NAME] (for a jti also `jti_claim`), or name a store with `store`.",
                kind.label()
            )));
        }
        names.into_iter().map(|name| self.writable_store(name)).collect()
    }

    fn largest_leeway(&self) -> Duration {
        let leeways = self.authenticators.iter().map(|one| one.settings().kind.leeway());
        leeways.max().unwrap_or_default()
    }
}

impl Done {
    fn nothing(kind: RevocationKind) -> Self {
        Self {
            kind,
            stores: String::new(),
            written: Written::NOTHING,
        }
    }

    fn outcome(&self) -> Outcome {
        match (self.written.is_known, self.written.replication) {
            (false, _) => Outcome::Unknown,
            (true, Replication::NotConfirmed) => Outcome::Unconfirmed,
            (true, Replication::NoReplica | Replication::Confirmed | Replication::Unknown) => Outcome::Revoked,
        }
    }
}

/// Carries out orders on a thread that may block.
async fn write(kind: RevocationKind, orders: Vec<Order>, turns: &RevocationTurns) -> Result<Done, Problem> {
    if orders.is_empty() {
        return Ok(Done::nothing(kind));
    }
    let unavailable = |detail: String| Problem::new(ProblemKind::Unavailable, detail);
    // It may be another database, or its records are lost. The log of its watcher says which.
    if let Some(order) = orders.iter().find(|order| !order.store.is_usable()) {
        return Err(unavailable(format!("Store {} cannot be used now.", order.store.name())));
    }
    let names: BTreeSet<&str> = orders.iter().map(|order| &**order.store.name()).collect();
    let stores = names.into_iter().collect::<Vec<_>>().join(", ");
    let turn = timeout(TIMEOUT, Arc::clone(&turns.0).acquire_owned()).await;
    let Ok(turn) = turn else {
        return Err(unavailable("Too many revocations are under way.".to_owned()));
    };
    let writing = spawn_blocking(move || {
        // Until the end, also when the client has its answer.
        let _turn = turn;
        write::all(&orders, unix_now())
    });
    match timeout(TIMEOUT, writing).await {
        Ok(Ok(Ok(written))) => Ok(Done { kind, stores, written }),
        Ok(Ok(Err(error))) => Err(unavailable(format!("{}.", error.0))),
        Ok(Err(problem)) => {
            error!(reason = %problem, "a revocation has stopped unexpectedly");
            let detail = "The revocation has stopped unexpectedly. The log has the reason.";
            Err(Problem::new(ProblemKind::Internal, detail))
        }
        Err(_) => Err(unavailable(format!(
            "Store {stores} did not answer within {} seconds. It may still revoke.",
            TIMEOUT.as_secs()
        ))),
    }
}

/// Logs and counts a revocation. The log has no id and no key.
fn record(done: &Result<Done, Problem>, client: &Node, metrics: &Metrics) {
    let result = match done {
        Ok(done) => done.outcome(),
        Err(problem) => problem.outcome(),
    };
    metrics.count_revocation(result.label_value());
    let outcome = result.label_value().text;
    let revoked = done.as_ref().ok();
    let (kind, store) = (
        revoked.map(|done| done.kind.label()),
        revoked.map(|done| done.stores.as_str()),
    );
    let reason = done.as_ref().err().map(Problem::detail);
    match result {
        Outcome::Revoked => info!(kind, store, outcome, client.ip = %client, "revoked"),
        Outcome::Unconfirmed => warn!(
            kind, store, outcome, client.ip = %client,
            "revoked, and no replica has confirmed it: if the primary is lost now, the revocation may be lost too"
        ),
        Outcome::Unknown => {
            info!(kind, outcome, client.ip = %client, "nothing to revoke: no authenticator accepts the token");
        }
        Outcome::Refused => info!(outcome, client.ip = %client, reason, "not revoked"),
        Outcome::Unavailable => warn!(outcome, client.ip = %client, reason, "not revoked"),
    }
}

fn irrevocable(authenticator: &str, why: Irrevocable) -> Problem {
    let why = match why {
        Irrevocable::NoStore => "looks for no revocations: it has `revocation = \"none\"`",
        Irrevocable::NoId => "finds no id in the token",
        Irrevocable::OtherType => "accepts no tokens of this type: revoke it at its issuer",
    };
    let detail = format!("Authenticator {authenticator} has verified the token, and {why}.");
    Problem::new(ProblemKind::UnsupportedToken, detail)
}

fn read_only(store: &str, kind: ProblemKind) -> Problem {
    let detail = format!(
        "Store {store} is the database of a Django application, which is only read. Use Django itself, or name another store with `store`."
    );
    Problem::new(kind, detail)
}
