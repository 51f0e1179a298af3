//! `Authorization: Token <key>`: an opaque key, which is looked up in a store by its digest and checked as DRF's `TokenAuthentication`
//! does.

use std::rc::Rc;
use std::sync::Arc;

use http::header::HeaderName;

use tokio::time::{Instant, timeout_at};

use super::cache::{self, Validity, VerdictCache};
use super::dependencies::{ChangeCounters, Dependencies};
use super::single_flight::SingleFlight;
use super::store::{Lookup, Store, StoreError, TokenFacts, TokenFault};
use super::{Decision, Now};
use crate::credential::{Acceptance, Refusal, Shape, Words};
use crate::identity::{Identity, UserInfo};
use crate::outbound::identity::IdentityTables;
use crate::telemetry::auth::CacheMetrics;

/// The configuration of one token authenticator.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The scheme before the key.
    pub scheme: KeyScheme,
    /// The header that carries the credential.
    pub header: HeaderName,
    /// Name of the store that holds the tokens.
    pub store: Arc<str>,
    /// Limits of its cache.
    pub cache: cache::Settings,
}

/// The scheme before an opaque key in its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyScheme {
    /// No scheme: the whole value is the key, as in `X-API-Key`.
    Empty,
    /// One of these schemes, compared without regard to ASCII case.
    OneOf(Vec<String>),
}

impl KeyScheme {
    /// The scheme to write before a key; empty where there is none.
    pub fn first(&self) -> &str {
        match self {
            Self::Empty => "",
            Self::OneOf(schemes) => schemes.first().map_or("", String::as_str),
        }
    }
}

/// The part that all workers share.
#[derive(Debug)]
pub struct Shared {
    settings: Settings,
    cache: VerdictCache,
    tables: Arc<IdentityTables>,
}

impl Shared {
    /// Makes the shared part from the settings. Identities get header values for each of `tables`.
    pub fn new(settings: Settings, tables: Arc<IdentityTables>, counters: Arc<ChangeCounters>) -> Arc<Self> {
        Arc::new(Self {
            cache: VerdictCache::new(settings.cache, counters),
            settings,
            tables,
        })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The metrics of its cache.
    pub fn metrics(&self) -> &CacheMetrics {
        self.cache.metrics()
    }
}

/// One worker's authenticator.
#[derive(Debug)]
pub struct TokenAuthenticator {
    shared: Arc<Shared>,
    store: Rc<Store>,
    single_flight: SingleFlight<(Decision, Dependencies)>,
}

impl TokenAuthenticator {
    /// Combines the shared part with this worker's handle on the store.
    pub fn new(shared: Arc<Shared>, store: Rc<Store>) -> Self {
        Self {
            shared,
            store,
            single_flight: SingleFlight::default(),
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.shared.settings.name
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(super) fn header(&self) -> &HeaderName {
        &self.shared.settings.header
    }

    /// `None`: the credential has another scheme.
    pub(super) async fn authenticate(
        &self,
        words: &Words<'_>,
        acceptance: Acceptance,
        now: Now,
    ) -> Result<Option<Result<Arc<Identity>, Refusal>>, StoreError> {
        let key = match &self.shared.settings.scheme {
            // An empty value is no credential; the same holds for a header without a word where a scheme is configured.
            KeyScheme::Empty => match words.whole() {
                b"" => return Ok(None),
                whole => whole,
            },
            KeyScheme::OneOf(schemes) => {
                let shape = words.shape();
                let mine = |scheme: &[u8]| schemes.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(scheme));
                if !shape.scheme().is_some_and(mine) {
                    return Ok(None);
                }
                match shape {
                    Shape::Empty => return Ok(None),
                    Shape::Scheme(_) => return Ok(Some(Err(Refusal::TokenMissing))),
                    Shape::More(_) => return Ok(Some(Err(Refusal::TokenHasSpaces))),
                    Shape::Pair(_, key) => key,
                }
            }
        };
        if std::str::from_utf8(key).is_err() {
            return Ok(Some(Err(Refusal::TokenHasInvalidCharacters)));
        }
        let verdict = self.look_up(key, now).await?;
        // A credential joined from several header lines is never accepted; its refusal may name the real reason.
        Ok(Some(match acceptance {
            Acceptance::Allowed => verdict,
            Acceptance::RefuseOnly => Err(verdict.err().unwrap_or(Refusal::TokenUnknown)),
        }))
    }

    async fn look_up(&self, key: &[u8], now: Now) -> Result<Result<Arc<Identity>, Refusal>, StoreError> {
        let cache_key = cache::key(key);
        if let Some(verdict) = self.shared.cache.find(&cache_key, now) {
            return Ok(verdict);
        }
        // Boxed: this future is large and rarely needed, so it must not enlarge the future of each request.
        Box::pin(self.look_up_uncached(key, cache_key, now)).await
    }

    /// Looks up a token that is not in the cache, or waits for a lookup of the same token that another request has begun.
    async fn look_up_uncached(
        &self,
        key: &[u8],
        cache_key: cache::Key,
        now: Now,
    ) -> Result<Result<Arc<Identity>, Refusal>, StoreError> {
        let deadline = Instant::now() + self.store.time_limit();
        let decision = if self.shared.cache.is_off() {
            self.ask(key, cache_key, deadline, now).await?
        } else {
            let shared = self.single_flight.share(
                cache_key,
                || self.ask(key, cache_key, deadline, now),
                |(decision, dependencies)| self.shared.cache.holds(decision, dependencies, now),
            );
            timeout_at(deadline, shared)
                .await
                .map_err(|_| self.store.too_late())??
        };
        Ok(decision.0.into_verdict())
    }

    /// Asks the store, and caches the decision.
    async fn ask(
        &self,
        key: &[u8],
        cache_key: cache::Key,
        deadline: Instant,
        now: Now,
    ) -> Result<(Decision, Dependencies), StoreError> {
        let mut lookup = Lookup::until(deadline);
        let decision = match self.store.token(key, &mut lookup).await? {
            None => Decision::Refused(Refusal::TokenUnknown),
            Some(facts) => self.evaluate(facts, now),
        };
        self.shared.cache.insert(cache_key, &decision, lookup.dependencies, now);
        Ok((decision, lookup.dependencies))
    }

    fn evaluate(&self, facts: TokenFacts, now: Now) -> Decision {
        let fault = facts.fault(now.unix_seconds());
        let TokenFacts { token, user, .. } = facts;
        let user = match (fault, user) {
            (None, Some(user)) => user,
            (Some(TokenFault::UserInactive), _) => return Decision::Refused(Refusal::TokenUserInactive),
            (Some(_), _) | (None, None) => return Decision::Refused(Refusal::TokenUnknown),
        };
        let user_info = UserInfo {
            authenticator: Arc::clone(&self.shared.settings.name),
            id: user.id,
            username: user.username,
            email: user.email,
            groups: user.groups,
            scopes: token.scopes,
            claims: serde_json::Map::new(),
            attributes: user.attributes,
        };
        let until_ms = token.expires.map_or(i64::MAX, |expires| expires.saturating_mul(1000));
        match self.shared.tables.identity(user_info) {
            Ok(identity) => Decision::Accepted {
                identity: Arc::new(identity),
                validity: Validity {
                    until_ms,
                    ..Validity::ALWAYS
                },
            },
            // A user whose values cannot be sent in a header is refused: the upstream could not identify them.
            Err(error) => Decision::Refused(Refusal::TokenUnsendableValue(error.to_string().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use http::header::AUTHORIZATION;
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::auth::store::{self, TokenDigest};
    use crate::credential::Presented;

    const NOW: Now = Now {
        unix_ms: 1_700_000_000_500,
        uptime_ms: 0,
    };

    /// Keys `good`, `expires-now`, `expires-later`, `revoked`, `orphan`, `idle`, `old`, `undated`, `fresh`.
    fn authenticator(folder: &std::path::Path) -> TokenAuthenticator {
        let mut text = "layout = { version = 1, epoch = \"e\" }\n[revoked.user]\nswept = 1699999999\n".to_owned();
        for (key, record) in [
            ("good", "user = \"1\""),
            ("expires-now", "user = \"1\"\nexpires = 1700000000"),
            ("expires-later", "user = \"1\"\nexpires = 1700000001"),
            ("revoked", "user = \"1\"\nrevoked = 1699999999"),
            ("orphan", "user = \"9\""),
            ("idle", "user = \"2\""),
            ("old", "user = \"swept\"\ncreated = 1699999999"),
            ("undated", "user = \"swept\""),
            ("fresh", "user = \"swept\"\ncreated = 1700000000"),
        ] {
            text += &format!("[tokens.{}]\n{record}\n", TokenDigest::of(key.as_bytes()).to_hex());
        }
        for (id, active) in [("1", true), ("2", false), ("swept", true)] {
            text += &format!("[users.{id}]\nid = \"{id}\"\nactive = {active}\n");
        }
        let file = folder.join("tokens.toml");
        fs::write(&file, text).expect("writable");
        let kind = store::Kind::Embedded(store::embedded::Settings {
            file,
            digests: store::Digests::SHA256,
        });
        let counters = Arc::default();
        let of_file = store::Settings {
            name: "file".into(),
            kind,
        };
        let store = store::Shared::new(of_file, Arc::clone(&counters));
        let settings = Settings {
            name: "token".into(),
            scheme: KeyScheme::OneOf(vec!["Token".into(), "Key".into()]),
            header: AUTHORIZATION,
            store: "file".into(),
            cache: cache::Settings {
                entries: 100,
                ttl: Duration::from_secs(60),
                negative_entries: 100,
                negative_ttl: Duration::from_secs(5),
            },
        };
        TokenAuthenticator::new(Shared::new(settings, Arc::default(), counters), store.open())
    }

    #[tokio::test]
    async fn keys_are_judged_as_drf_judges_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let authenticator = authenticator(folder.path());
        type Case = (&'static [u8], Option<Result<&'static str, Refusal>>);
        let cases: &[Case] = &[
            (b"", None),
            (b"Basic abc", None),
            ("To\u{212a}en good".as_bytes(), None),
            (b"Token", Some(Err(Refusal::TokenMissing))),
            (b"Token a b", Some(Err(Refusal::TokenHasSpaces))),
            (b"Token \xff \xff", Some(Err(Refusal::TokenHasSpaces))),
            (b"Token \xc0\x80", Some(Err(Refusal::TokenHasInvalidCharacters))),
            (b"Token nope", Some(Err(Refusal::TokenUnknown))),
            (b"Token GOOD", Some(Err(Refusal::TokenUnknown))),
            (b"Token good", Some(Ok("1"))),
            (b"tOKEN good", Some(Ok("1"))),
            (b"key\tgood", Some(Ok("1"))),
            (b"Token expires-now", Some(Err(Refusal::TokenUnknown))),
            (b"Token expires-later", Some(Ok("1"))),
            (b"Token revoked", Some(Err(Refusal::TokenUnknown))),
            (b"Token orphan", Some(Err(Refusal::TokenUnknown))),
            (b"Token idle", Some(Err(Refusal::TokenUserInactive))),
            (b"Token old", Some(Err(Refusal::TokenUnknown))),
            (b"Token undated", Some(Err(Refusal::TokenUnknown))),
            (b"Token fresh", Some(Ok("swept"))),
        ];
        for (value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value).expect("a legal value"));
            let presented = Presented::from_headers(&headers, &AUTHORIZATION);
            let (words, acceptance) = presented.words().expect("one line");
            // Twice: the second answer comes from the cache.
            for _ in 0..2 {
                let verdict = authenticator
                    .authenticate(words, acceptance, NOW)
                    .await
                    .expect("the store is there");
                let verdict =
                    verdict.map(|verdict| verdict.map(|identity| identity.user_info().id.as_str().to_owned()));
                let expected = expected.clone().map(|expected| expected.map(str::to_owned));
                assert_eq!(verdict, expected, "{}", String::from_utf8_lossy(value));
            }
        }
    }

    #[tokio::test]
    async fn a_cached_key_ends_when_it_expires() {
        let folder = tempfile::tempdir().expect("a folder");
        let authenticator = authenticator(folder.path());
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Token expires-later"));
        let presented = Presented::from_headers(&headers, &AUTHORIZATION);
        let (words, acceptance) = presented.words().expect("one line");
        let mut verdicts = Vec::new();
        for unix_ms in [1_700_000_000_500, 1_700_000_000_999, 1_700_000_001_000] {
            let verdict = authenticator
                .authenticate(words, acceptance, Now { unix_ms, ..NOW })
                .await
                .expect("the store is there");
            verdicts.push(verdict.is_some_and(|verdict| verdict.is_ok()));
        }
        assert_eq!(verdicts, [true, true, false]);
    }
}
