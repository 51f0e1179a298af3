//! `Authorization: Token <key>`: an opaque key, which is looked up in a store by its digest and checked as DRF's `TokenAuthentication`
//! does.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use authgate_core::credential::{Acceptance, Refusal, Shape, Words};
use authgate_core::identity::UserInfo;

use crate::decision::{Decision, RefusedCredential};
use crate::dependencies::ChangeCounters;
use crate::error::EvaluationError;
use crate::identities::IdentityFactory;
use crate::now::Now;
use crate::outage::Outage;
use crate::reading::Reading;
use crate::scheme::AuthScheme;
use crate::store::{Lookup, Store, TokenFacts, TokenFault};
use crate::validity::Validity;
use crate::withdrawn::Withdrawn;
use crate::worker::WorkerResources;

/// The settings of this kind.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// Name of the store that holds the tokens.
    pub store: Arc<str>,
    /// The store that is asked where the first one does not know a key.
    pub source: Option<Source>,
    /// What happens to a key that no record of the store knows.
    pub on_unknown: OnUnknown,
}

/// A store behind another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub store: Arc<str>,
    /// How long the store in front keeps what it says.
    pub ttl: Duration,
}

/// What happens to a key that no record knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknown {
    /// It is refused.
    Refuse,
    /// It is forwarded without an identity, where the route allows that.
    Forward,
}

impl TokenSettings {
    pub(super) fn share(&self, _: &Arc<str>, _: Option<&()>, _: &Arc<ChangeCounters>) {}

    pub(super) fn stores(&self) -> Vec<&Arc<str>> {
        let source = self.source.as_ref().map(|source| &source.store);
        std::iter::once(&self.store).chain(source).collect()
    }

    pub(super) fn still_accepts(
        &self,
        _: &UserInfo,
        previous: &Self,
        is_same_store: &dyn Fn(&str, &str) -> bool,
    ) -> Result<(), Withdrawn> {
        // The credential may be known to the source alone.
        let is_same_source = match (&self.source, &previous.source) {
            (_, None) => true,
            (Some(own), Some(previous)) => is_same_store(&own.store, &previous.store),
            (None, Some(_)) => false,
        };
        match is_same_store(&self.store, &previous.store) && is_same_source {
            true => Ok(()),
            false => Err(Withdrawn::Store),
        }
    }
}

/// One worker's evaluator.
#[derive(Debug)]
pub(super) struct TokenEvaluator {
    identities: IdentityFactory,
    store: Rc<Store>,
    source: Option<(Rc<Store>, Duration)>,
}

impl TokenEvaluator {
    pub(super) fn new(
        settings: &TokenSettings,
        (): &(),
        identities: &IdentityFactory,
        worker: &WorkerResources,
    ) -> Self {
        Self {
            identities: identities.clone(),
            store: worker.store(&settings.store),
            source: settings
                .source
                .as_ref()
                .map(|source| (worker.store(&source.store), source.ttl)),
        }
    }

    pub(super) fn read<'w>(&self, scheme: &AuthScheme, words: &'w Words<'_>, acceptance: Acceptance) -> Reading<'w> {
        let key = if matches!(scheme, AuthScheme::None) {
            match words.whole() {
                b"" => return Reading::OtherScheme,
                whole => whole,
            }
        } else {
            let shape = words.shape();
            // A header without a word is no credential.
            if !shape.scheme().is_some_and(|sent| scheme.is(sent)) {
                return Reading::OtherScheme;
            }
            match shape {
                Shape::Empty => return Reading::OtherScheme,
                Shape::Scheme(_) => return Reading::Malformed(Refusal::TokenMissing),
                Shape::More(_) => return Reading::Malformed(Refusal::TokenHasSpaces),
                Shape::Pair(_, key) => key,
            }
        };
        if std::str::from_utf8(key).is_err() {
            return Reading::Malformed(Refusal::TokenHasInvalidCharacters);
        }
        match acceptance {
            Acceptance::Allowed => Reading::Credential(key),
            Acceptance::RefuseOnly => Reading::Joined(key, Refusal::TokenUnknown),
        }
    }

    /// Without the first store, the source is not asked either.
    pub(super) fn down(&self) -> Option<&Outage> {
        self.store.down()
    }

    pub(super) async fn evaluate(
        &self,
        key: &[u8],
        now: Now,
        lookup: &mut Lookup,
    ) -> Result<Decision, EvaluationError> {
        let facts = match (self.store.token(key, lookup).await?, &self.source) {
            // The record of the user may have ended before that of the token.
            (None, Some((source, ttl))) => source.token_behind(&self.store, *ttl, key, lookup).await?,
            (Some(facts), Some((source, ttl))) if facts.user.is_none() && facts.token.revoked.is_none() => {
                source.token_behind(&self.store, *ttl, key, lookup).await?
            }
            (facts, _) => facts,
        };
        Ok(match facts {
            None => Refusal::TokenUnknown.into(),
            Some(facts) => self.check(facts, now),
        })
    }

    fn check(&self, facts: TokenFacts, now: Now) -> Decision {
        let fault = facts.fault(now.unix_seconds());
        let TokenFacts { token, user, .. } = facts;
        let refused = |refusal| Decision::Refused(RefusedCredential::new(refusal, Some(token.user.clone())));
        let user = match (fault, user) {
            (None, Some(user)) => user,
            (Some(TokenFault::UserInactive), _) => return refused(Refusal::TokenUserInactive),
            (Some(TokenFault::Revoked(_)), _) => return refused(Refusal::TokenInvalid("it is revoked")),
            (Some(TokenFault::UserRevoked(_)), _) => {
                return refused(Refusal::TokenInvalid("the tokens of its user are revoked"));
            }
            (Some(TokenFault::Expired(_)), _) => return refused(Refusal::TokenInvalid("it has expired")),
            (Some(TokenFault::NoUser), _) | (None, None) => {
                return refused(Refusal::TokenInvalid("its user does not exist"));
            }
        };
        let user_info = UserInfo {
            authenticator: self.identities.authenticator(),
            issuer: None,
            key: None,
            id: user.id,
            username: user.username,
            email: user.email,
            groups: user.groups,
            scopes: token.scopes,
            claims: serde_json::Map::new(),
            attributes: user.attributes,
        };
        let until_ms = token.expires.map_or(i64::MAX, |expires| expires.saturating_mul(1000));
        match self.identities.identity(user_info) {
            Ok(identity) => Decision::Accepted {
                identity,
                validity: Validity {
                    until_ms,
                    ..Validity::ALWAYS
                },
                binding: None,
            },
            // A user whose values cannot be sent in a header is refused: the upstream could not identify them.
            Err(error) => refused(Refusal::TokenUnsendableValue(error.to_string().into())),
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
    use crate::cache::{CacheSettings, OnOutage};
    use crate::request::PlainRequest;
    use crate::store::embedded::EmbeddedSettings;
    use crate::store::{Digests, SharedStore, StoreKind, StoreSettings, TokenDigest};
    use crate::{Authenticator, AuthenticatorSettings, KindSettings, SharedAuthenticator};
    use authgate_core::credential::Presented;

    const NOW: Now = Now {
        unix_ms: 1_700_000_000_500,
        uptime_ms: 0,
    };

    /// Keys `good`, `expires-now`, `expires-later`, `revoked`, `orphan`, `idle`, `old`, `undated`, `fresh`.
    fn authenticator(folder: &std::path::Path) -> Authenticator {
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
        let kind = StoreKind::Embedded(EmbeddedSettings {
            file,
            digests: Digests::SHA256,
        });
        let counters = Arc::default();
        let of_file = StoreSettings {
            name: "file".into(),
            kind,
        };
        let store = SharedStore::new(of_file, &counters);
        let settings = AuthenticatorSettings {
            name: "token".into(),
            scheme: AuthScheme::OneOf(vec!["Token".into(), "Key".into()]),
            header: AUTHORIZATION,
            realm: None,
            on_outage: OnOutage::Deny,
            kind: KindSettings::Token(Arc::new(TokenSettings {
                store: "file".into(),
                source: None,
                on_unknown: OnUnknown::Refuse,
            })),
            cache: CacheSettings {
                entries: 100,
                ttl: Duration::from_secs(60),
                negative_entries: 100,
                negative_ttl: Duration::from_secs(5),
            },
        };
        let shared = SharedAuthenticator::new(settings, &Arc::default(), &counters);
        Authenticator::new(&shared, &WorkerResources::open(&[store], &Arc::default()))
    }

    #[tokio::test]
    async fn keys_are_checked_as_drf_checks_them() {
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
            (b"Token expires-now", Some(Err(Refusal::TokenInvalid("it has expired")))),
            (b"Token expires-later", Some(Ok("1"))),
            (b"Token revoked", Some(Err(Refusal::TokenInvalid("it is revoked")))),
            (
                b"Token orphan",
                Some(Err(Refusal::TokenInvalid("its user does not exist"))),
            ),
            (b"Token idle", Some(Err(Refusal::TokenUserInactive))),
            (
                b"Token old",
                Some(Err(Refusal::TokenInvalid("the tokens of its user are revoked"))),
            ),
            (
                b"Token undated",
                Some(Err(Refusal::TokenInvalid("the tokens of its user are revoked"))),
            ),
            (b"Token fresh", Some(Ok("swept"))),
        ];
        for (value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value).expect("a legal value"));
            let presented = Presented::from_headers(&headers, &AUTHORIZATION);
            // Twice: the second answer comes from the cache.
            for _ in 0..2 {
                let verdict = authenticator
                    .authenticate(&presented, &PlainRequest::default().with(&headers), NOW)
                    .await
                    .expect("the store is there");
                let verdict = verdict.decided().map(|verdict| match verdict {
                    Ok(identity) => Ok(identity.user_info().id.as_str().to_owned()),
                    Err(refused) => {
                        let (refusal, user) = refused.into_parts();
                        let is_known = !matches!(
                            refusal,
                            Refusal::TokenUnknown
                                | Refusal::TokenMissing
                                | Refusal::TokenHasSpaces
                                | Refusal::TokenHasInvalidCharacters
                        );
                        assert_eq!(user.is_some(), is_known, "{refusal:?}");
                        Err(refusal)
                    }
                });
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
        let mut verdicts = Vec::new();
        for unix_ms in [1_700_000_000_500, 1_700_000_000_999, 1_700_000_001_000] {
            let verdict = authenticator
                .authenticate(
                    &presented,
                    &PlainRequest::default().with(&headers),
                    Now { unix_ms, ..NOW },
                )
                .await
                .expect("the store is there");
            verdicts.push(verdict.decided().is_some_and(|verdict| verdict.is_ok()));
        }
        assert_eq!(verdicts, [true, true, false]);
    }
}
