//! JWT authenticators. The keys are named like SimpleJWT's settings; the profile sets their defaults.

use std::sync::Arc;

use authgate_auth::jwt::{Issuer, Issuers, JwtSettings, Namespace, Profile};
use authgate_auth::{AuthenticatorSettings, CredentialForm, KindSettings};

use super::binding::add_scheme;
use super::common::{cache, form, header, schemes};
use super::identity::Identities;
use super::issuer::{accepted, issuer, store_or_none};
use super::issuers::issuers;
use super::outage::on_outage;
use super::stores::Stores;
use crate::config::keys::authenticators as common_keys;
use crate::config::keys::{issuer as issuer_keys, jwt as keys};
use crate::config::reader::{Item, Section};

pub(super) fn jwt(
    mut section: Section<'_>,
    name: Arc<str>,
    stores: &Stores,
    identities: &Identities,
) -> Option<AuthenticatorSettings> {
    let profile_item = section.take(&keys::PROFILE);
    let profile = keys::PROFILE.read_or_default(profile_item.as_ref());
    let mut schemes = schemes(&mut section, |own, other| {
        profile.auth_scheme(vec![own.to_owned()]).is(other.as_bytes())
    });
    let (form_item, form) = form(&mut section);
    if let (Some(item), CredentialForm::Opaque) = (&form_item, form) {
        item.warn(
            "every credential is refused or left to other authenticators: a JWT is never opaque",
            "write `form = \"jwt\"`, or remove `form`",
        );
    }
    let header = header(&mut section, identities);
    let realm = realm(&mut section);
    let issuers = match section.take(&keys::ISSUERS) {
        None => one_issuer(&mut section, profile, profile_item.as_ref(), stores).map(Issuers::One),
        Some(tables) => Some(Issuers::ByName(issuers(&mut section, &tables, profile, stores))),
    };
    let reads_ids = issuers
        .as_ref()
        .is_none_or(|issuers| issuers.all().all(|issuer| issuer.rules.jti_claim.is_some()));
    let revocation = revocation(&mut section, stores, reads_ids);
    let cache = cache(&mut section);
    let can_fail = issuers.as_ref().is_none_or(|issuers| {
        let users = issuers.all().filter_map(|issuer| issuer.users.store());
        users.chain(&revocation).any(|store| stores.can_be_in_outage(store))
    });
    let on_outage = on_outage(
        &mut section,
        &cache,
        can_fail,
        "name a store of `kind = \"redis\"` or `kind = \"django\"` as `users` or `revocation`",
    );
    let kind = KindSettings::Jwt(Arc::new(JwtSettings {
        issuers: issuers?,
        form,
        revocation,
    }));
    add_scheme(&section, &mut schemes, &kind);
    Some(AuthenticatorSettings {
        name,
        header,
        scheme: profile.auth_scheme(schemes),
        realm: Some(realm),
        cache,
        on_outage,
        kind,
    })
}

/// The keys of the only issuer, which are those of the authenticator.
fn one_issuer(
    section: &mut Section<'_>,
    profile: Profile,
    profile_item: Option<&Item<'_>>,
    stores: &Stores,
) -> Option<Issuer> {
    let names = accepted(section, &issuer_keys::ISSUER);
    let issuer = issuer(section, profile, names, Namespace::default(), stores);
    if let (Some(item), Profile::Rfc9068, Some(issuer)) = (profile_item, profile, &issuer)
        && issuer.rules.audience.is_empty()
    {
        item.warn(
            "access tokens for other APIs are accepted: RFC 9068, section 4, requires an audience check",
            "write `audience = \"…\"` with the name of this API, and `issuer = \"…\"`",
        );
    }
    issuer
}

/// `revocation`: the store with revocations. `reads_ids`: the ids of all tokens are read.
pub(super) fn revocation(section: &mut Section<'_>, stores: &Stores, reads_ids: bool) -> Option<Arc<str>> {
    let item = section.take(&common_keys::REVOCATION)?;
    let store = store_or_none(&item, stores).flatten()?;
    if !stores.has_revocations(&store) {
        item.refuse(
            format!(
                "store {:?} has no revocations: Django's tables have no list of them",
                &*store
            ),
            "write `revocation = \"none\"`, or the name of a store of `kind = \"redis\"` or `kind = \"embedded\"`",
        );
    }
    if !reads_ids {
        item.warn(
            "single tokens cannot be revoked: with `jti_claim = false` the gateway does not read their ids",
            "write `jti_claim = \"jti\"` if tokens have one",
        );
    }
    Some(store)
}

/// SimpleJWT writes the realm between quotes without escaping it.
pub(super) fn realm(section: &mut Section<'_>) -> String {
    let Some(text) = section.take(&common_keys::REALM).and_then(|item| item.text()) else {
        return common_keys::REALM.default();
    };
    if !text
        .as_str()
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\".contains(&byte))
    {
        text.refuse(
            "cannot be written in a challenge",
            "write visible ASCII without \" and \\, such as \"api\"",
        );
    }
    text.into_string()
}
