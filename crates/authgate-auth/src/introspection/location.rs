//! [`Location`]: where an introspection endpoint is, and [`Discovery`]: how that is found out.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::error::IntrospectionError;
use crate::fetch::discovery::{DiscoveryError, Metadata};
use crate::fetch::{FetchError, FetchUrl, HttpClient};

/// How long metadata is used before it is fetched again. The last one is used for as long as that fails.
const REFRESH: Duration = Duration::from_secs(300);
/// After a fetch that has failed, the next one waits for so long: with an older document, and without.
const COOLDOWN: Duration = Duration::from_secs(30);
const SHORT_COOLDOWN: Duration = Duration::from_secs(1);

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// At this URL.
    Url(FetchUrl),
    /// Where the metadata of this issuer says.
    Issuer(FetchUrl),
}

/// The endpoint that the metadata has named.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    found: ArcSwapOption<Found>,
    /// Held during a fetch: when the last one has failed, and why.
    failed: Mutex<Option<(Instant, IntrospectionError)>>,
}

#[derive(Debug)]
struct Found {
    url: FetchUrl,
    at: Instant,
}

impl Found {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < REFRESH
    }
}

impl Discovery {
    /// The endpoint of an issuer. Concurrent requests wait for one fetch. Where an older document is known, only the request that fetches waits.
    pub(super) async fn url(
        &self,
        issuer: &FetchUrl,
        client: &Arc<HttpClient>,
        deadline: Instant,
    ) -> Result<FetchUrl, IntrospectionError> {
        let known = self.found.load_full();
        let mut failed = match &known {
            Some(found) if found.is_fresh() => return Ok(found.url.clone()),
            Some(found) => match self.failed.try_lock() {
                Ok(failed) => failed,
                Err(_) => return Ok(found.url.clone()),
            },
            None => match timeout_at(deadline, self.failed.lock()).await {
                Ok(failed) => failed,
                Err(_) => return Err(IntrospectionError::Fetch(FetchError::Timeout)),
            },
        };
        // Another request may have fetched it while this one waited.
        if let Some(found) = self.found.load_full().filter(|found| found.is_fresh()) {
            return Ok(found.url.clone());
        }
        // With an older document, there must be time left to ask the endpoint.
        let (cooldown, deadline) = match &known {
            Some(_) => (
                COOLDOWN,
                Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2,
            ),
            None => (SHORT_COOLDOWN, deadline),
        };
        let error = match &*failed {
            Some((at, error)) if at.elapsed() < cooldown => error.clone(),
            Some(_) | None => match endpoint(issuer, client, deadline).await {
                Ok(url) => {
                    *failed = None;
                    let at = Instant::now();
                    self.found.store(Some(Arc::new(Found { url: url.clone(), at })));
                    return Ok(url);
                }
                Err(error) => {
                    *failed = Some((Instant::now(), error.clone()));
                    error
                }
            },
        };
        known.map(|found| found.url.clone()).ok_or(error)
    }
}

async fn endpoint(
    issuer: &FetchUrl,
    client: &Arc<HttpClient>,
    deadline: Instant,
) -> Result<FetchUrl, IntrospectionError> {
    let fetched = Metadata::fetch(client, issuer, deadline).await;
    let metadata = fetched.map_err(|error: DiscoveryError| IntrospectionError::Discovery(error.to_string().into()))?;
    metadata.introspection_endpoint.ok_or_else(|| {
        IntrospectionError::Discovery(
            "they have no `introspection_endpoint`; write `url` in place of `discovery`".into(),
        )
    })
}
