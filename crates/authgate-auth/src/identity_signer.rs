//! [`IdentitySigner`]: makes the signed identities for one upstream: JWTs with what is known about the user.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use authgate_core::identity::{Text, UserInfo};
use authgate_core::member::MemberPath;
use authgate_core::outbound::identity::ValueSource;
use authgate_core::policy::{Permit, Principal};
use authgate_core::token_slot::{RulesDigest, SignedToken};
use aws_lc_rs::digest;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use crate::jwt::identity_key::IdentityKey;
use crate::jwt::sign::SignError;
use crate::now::Now;

/// The `typ` of a signed identity: no other kind of token can take its place (RFC 8725, section 3.11).
pub const TYP: &str = "authgate-identity+jwt";

/// The settings of the signed identities for one upstream.
#[derive(Debug)]
pub struct IdentitySignerSettings {
    /// The header that carries the token.
    pub header: HeaderName,
    /// The key that signs.
    pub key: Arc<IdentityKey>,
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// From `iat` to `exp`.
    pub ttl: Duration,
    /// The facts about the user beside `sub`.
    pub facts: Box<[ValueSource]>,
}

/// Makes the signed identities for one upstream. It has no state: tokens are kept beside the identities.
#[derive(Debug)]
pub struct IdentitySigner {
    settings: IdentitySignerSettings,
    /// Of all settings that a token depends on.
    digest: RulesDigest,
    /// The index of the slot of identities that has its tokens.
    slot: usize,
}

/// Equal signers send equal tokens, in the same header.
impl PartialEq for IdentitySigner {
    fn eq(&self, other: &Self) -> bool {
        (self.header(), self.digest, self.slot) == (other.header(), other.digest, other.slot)
    }
}

impl Eq for IdentitySigner {}

impl Hash for IdentitySigner {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.header(), self.digest, self.slot).hash(state);
    }
}

impl IdentitySigner {
    /// Makes a signer. Its tokens are kept in this slot of identities.
    pub fn new(settings: IdentitySignerSettings, slot: usize) -> Self {
        let IdentitySignerSettings {
            header: _,
            key,
            issuer,
            audience,
            ttl,
            facts,
        } = &settings;
        let facts: Vec<String> = facts.iter().map(ValueSource::to_string).collect();
        let (algorithm, fingerprint) = (key.algorithm().name(), key.fingerprint());
        let all = json!([
            algorithm,
            key.kid(),
            fingerprint,
            issuer,
            audience,
            ttl.as_millis().to_string(),
            facts
        ]);
        let mut rules = RulesDigest::default();
        rules.copy_from_slice(digest::digest(&digest::SHA256, all.to_string().as_bytes()).as_ref());
        Self {
            settings,
            digest: rules,
            slot,
        }
    }

    /// The header that carries the token.
    pub fn header(&self) -> &HeaderName {
        &self.settings.header
    }

    /// `aud`.
    pub fn audience(&self) -> &str {
        &self.settings.audience
    }

    /// The facts about the user beside `sub`.
    pub fn facts(&self) -> &[ValueSource] {
        &self.settings.facts
    }

    /// The token of a permitted request. It is signed once for an identity, and used until half of its lifetime is over. `None`: the request
    /// has no user.
    ///
    /// # Errors
    /// The library refuses to sign. The request must not be sent then: without a token, it would look anonymous.
    pub fn token(&self, permit: &Permit, now: Now) -> Result<Option<HeaderValue>, SignError> {
        let identity = match permit.principal() {
            Principal::User(identity) => identity,
            // The application authenticates the last two by itself.
            Principal::Public | Principal::Anonymous | Principal::Unknown | Principal::Observed => return Ok(None),
        };
        let sign = || self.sign(identity.user_info(), now);
        match identity.token_slot(self.slot) {
            Some(slot) => slot.get_or_sign(&self.digest, now.unix_ms, sign),
            None => sign().map(|token| token.value),
        }
        .map(Some)
    }

    #[cold]
    fn sign(&self, user_info: &UserInfo, now: Now) -> Result<SignedToken, SignError> {
        let token = self.settings.key.sign_as(TYP, &self.claims(user_info, now))?;
        let mut value = HeaderValue::try_from(token).expect("a JWS is base64url and dots");
        value.set_sensitive(true);
        Ok(SignedToken {
            value,
            rules: self.digest,
            made_ms: now.unix_ms,
            renew_ms: now.unix_ms.saturating_add(self.ttl_ms() / 2),
        })
    }

    fn ttl_ms(&self) -> i64 {
        i64::try_from(self.settings.ttl.as_millis()).unwrap_or(i64::MAX)
    }

    /// The claims: each fact has the name that it has in `[identity]`. What is not known is absent.
    fn claims(&self, user_info: &UserInfo, now: Now) -> Map<String, Value> {
        // Rounded up: a token that is sent until half of its lifetime is over never has less than half of it left.
        let expires = now
            .unix_ms
            .saturating_add(self.ttl_ms())
            .saturating_add(999)
            .div_euclid(1000);
        let mut claims = Map::new();
        let mut insert = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        insert("iss", json!(self.settings.issuer));
        insert("sub", json!(user_info.id.as_str()));
        insert("aud", json!(self.settings.audience));
        insert("iat", json!(now.unix_seconds()));
        insert("exp", json!(expires));
        let (mut kept_claims, mut attributes) = (Map::new(), Map::new());
        for fact in &self.settings.facts {
            match fact {
                ValueSource::Id => {}
                ValueSource::Username => {
                    user_info
                        .username
                        .as_ref()
                        .map(|name| insert("username", json!(name.as_str())));
                }
                ValueSource::Email => {
                    user_info
                        .email
                        .as_ref()
                        .map(|email| insert("email", json!(email.as_str())));
                }
                ValueSource::Groups => {
                    insert("groups", texts(&user_info.groups));
                }
                ValueSource::Scopes => {
                    insert("scopes", texts(&user_info.scopes));
                }
                ValueSource::Authenticator => {
                    insert("authenticator", json!(&*user_info.authenticator));
                }
                ValueSource::Claim(path) => copy(path, &user_info.claims, &mut kept_claims),
                ValueSource::Attribute(path) => copy(path, &user_info.attributes, &mut attributes),
            }
        }
        for (name, members) in [("claims", kept_claims), ("attributes", attributes)] {
            if !members.is_empty() {
                insert(name, Value::Object(members));
            }
        }
        claims
    }
}

fn texts(texts: &[Text]) -> Value {
    texts.iter().map(Text::as_str).collect()
}

/// Copies a member to the same place of another object.
fn copy(path: &MemberPath, from: &Map<String, Value>, to: &mut Map<String, Value>) {
    let Some(value) = path.find(from).filter(|value| !value.is_null()) else {
        return;
    };
    let mut names: Vec<&str> = path.names().collect();
    let last = names.pop().unwrap_or_default();
    let mut object = to;
    for name in names {
        let inner = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
        match inner {
            Value::Object(inner) => object = inner,
            // Both were copied from the same object, so an inner name has an object.
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => return,
        }
    }
    object.insert(last.to_owned(), value.clone());
}

#[cfg(test)]
mod tests {
    use authgate_core::outbound::identity::IdentityTables;
    use authgate_core::policy::{Policy, Requirements};
    use authgate_core::secret::Secret;
    use aws_lc_rs::signature::Ed25519KeyPair;
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;
    use crate::identities::fixtures;
    use crate::jwt::keys::Algorithm;

    fn key(kid: &str) -> Arc<IdentityKey> {
        let der = Ed25519KeyPair::generate().expect("a key").to_pkcs8v1().expect("DER");
        let text = STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
        let pem = Secret::new(pem.into_bytes());
        Arc::new(IdentityKey::new(Algorithm::EdDSA, Some(kid.to_owned()), &pem).expect("a key"))
    }

    fn signer(kid: &str, facts: &[ValueSource], slot: usize) -> IdentitySigner {
        let settings = IdentitySignerSettings {
            header: HeaderName::from_static("x-authgate-identity"),
            key: key(kid),
            issuer: "authgate".to_owned(),
            audience: "app".to_owned(),
            ttl: Duration::from_secs(60),
            facts: facts.into(),
        };
        IdentitySigner::new(settings, slot)
    }

    fn ada() -> UserInfo {
        let text = |text| Text::new(text).expect("plain text");
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        UserInfo {
            username: Some(text("zo\u{eb}")),
            groups: vec![text("a,b"), text("c d")],
            claims: object(json!({ "realm": { "roles": ["x"], "other": 1 }, "a.b": true, "secret": 1 })),
            attributes: object(json!({ "tenant": "acme", "none": null })),
            ..fixtures::user_info("token", "42")
        }
    }

    fn claims_of(token: &HeaderValue) -> Value {
        let payload = token
            .to_str()
            .expect("ASCII")
            .split('.')
            .nth(1)
            .expect("a JWS")
            .to_owned();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64url")).expect("JSON")
    }

    fn permit(slots: usize) -> Permit {
        let mut tables = IdentityTables::default();
        for _ in 0..slots {
            tables.add_token_slot();
        }
        let policy = Policy::Authenticated {
            optional: true,
            require: Requirements::default(),
        };
        let identity = tables.identity(ada()).expect("plain values");
        policy.permit(Some(Arc::new(identity))).expect("a user")
    }

    const NOW: Now = Now {
        unix_ms: 1_700_000_000_900,
        uptime_ms: 0,
    };

    #[test]
    fn the_claims_are_the_named_facts_and_nothing_else() {
        let path = |path| MemberPath::parse(path).expect("a path");
        let facts = [
            ValueSource::Username,
            ValueSource::Email,
            ValueSource::Groups,
            ValueSource::Scopes,
            ValueSource::Authenticator,
            ValueSource::Claim(path("realm.roles")),
            ValueSource::Claim(path("\"a.b\"")),
            ValueSource::Attribute(path("tenant")),
            ValueSource::Attribute(path("none")),
        ];
        let token = signer("a", &facts, 0)
            .token(&permit(1), NOW)
            .expect("signed")
            .expect("a user");
        let expected = json!({
            "iss": "authgate", "sub": "42", "aud": "app", "iat": 1_700_000_000, "exp": 1_700_000_061,
            "username": "zo\u{eb}", "groups": ["a,b", "c d"], "scopes": [], "authenticator": "token",
            "claims": { "realm": { "roles": ["x"] }, "a.b": true }, "attributes": { "tenant": "acme" },
        });
        assert_eq!(claims_of(&token), expected);
        let token = signer("a", &[], 0)
            .token(&permit(1), NOW)
            .expect("signed")
            .expect("a user");
        assert_eq!(claims_of(&token).as_object().expect("an object").len(), 5);
    }

    #[test]
    fn a_token_is_used_until_half_of_its_lifetime_is_over_and_never_by_another_key() {
        let (one, other, permit) = (signer("a", &[], 0), signer("b", &[], 0), permit(1));
        let at = |signer: &IdentitySigner, ms: i64| {
            let now = Now {
                unix_ms: NOW.unix_ms + ms,
                ..NOW
            };
            signer.token(&permit, now).expect("signed").expect("a user")
        };
        let first = at(&one, 0);
        assert_eq!(at(&one, 29_999), first);
        let renewed = at(&one, 30_000);
        assert_ne!(renewed, first);
        let rotated = at(&other, 30_001);
        assert_ne!(rotated, renewed);
        assert_eq!(at(&other, 30_002), rotated);
    }

    #[test]
    fn requests_without_a_user_have_no_token() {
        let policy = Policy::Authenticated {
            optional: true,
            require: Requirements::default(),
        };
        let signer = signer("a", &[], 0);
        for permit in [policy.permit(None), Policy::Public.permit(None)] {
            assert_eq!(signer.token(&permit.expect("permitted"), NOW), Ok(None));
        }
        // An identity that has no room for the token still gets one.
        assert!(signer.token(&permit(0), NOW).expect("signed").is_some());
    }
}
