//! JWT authenticators. The keys are named like SimpleJWT's settings; the profile sets their defaults.

use std::sync::Arc;

use authgate_auth::jwt::{JwtSettings, KeySet, Profile, Rules, TokenType, UserIdField, Users};
use authgate_auth::{AuthenticatorSettings, CredentialForm, KindSettings};
use bytesize::ByteSize;

use super::common::{cache, form, header, schemes};
use super::identity::Identities;
use super::keys::key_set;
use super::stores::{NONE, Stores};
use crate::config::defaults;
use crate::config::reader::{Item, Section, Zero};

pub(super) fn jwt(
    mut section: Section<'_>,
    name: Arc<str>,
    stores: &Stores,
    identities: &Identities,
) -> Option<AuthenticatorSettings> {
    let profiles = [
        ("simplejwt", Profile::SimpleJwt),
        ("plain", Profile::Plain),
        ("rfc9068", Profile::Rfc9068),
    ];
    let profile_item = section.take("profile");
    let profile = profile_item
        .as_ref()
        .and_then(|item| item.text()?.choice(&profiles, &[]));
    let profile = profile.unwrap_or(defaults::PROFILE);
    let schemes = schemes(&mut section, defaults::JWT_SCHEME, |own, other| {
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
    let keys = key_set(&mut section);
    let rules = rules(&mut section, profile);
    if let (Some(item), Profile::Rfc9068, true) = (&profile_item, profile, rules.audience.is_empty()) {
        item.warn(
            "access tokens for other APIs are accepted: RFC 9068, section 4, requires an audience check",
            "write `audience = \"…\"` with the name of this API, and `issuer = \"…\"`",
        );
    }
    let token_bytes = token_bytes(&mut section);
    let users = users(&mut section, profile, stores);
    let revocation = revocation(&mut section, stores, rules.jti_claim.as_deref());
    let cache = cache(&mut section);
    let settings = JwtSettings {
        keys: keys.unwrap_or(KeySet::Static(Vec::new())),
        form,
        token_bytes,
        rules,
        users: users?,
        revocation,
    };
    Some(AuthenticatorSettings {
        name,
        header,
        scheme: profile.auth_scheme(schemes),
        realm: Some(realm),
        cache,
        kind: KindSettings::Jwt(Arc::new(settings)),
    })
}

/// `token_bytes`: longer tokens are refused unread.
pub(super) fn token_bytes(section: &mut Section<'_>) -> usize {
    let item = section.take("token_bytes");
    let (min, max) = (ByteSize::b(64), ByteSize::mib(1));
    item.and_then(|item| item.size(min, max))
        .unwrap_or(defaults::TOKEN_BYTES)
}

/// `revocation`: the store with revocations. `jti_claim`: the claim with the id of a token, if it is read.
pub(super) fn revocation(section: &mut Section<'_>, stores: &Stores, jti_claim: Option<&str>) -> Option<Arc<str>> {
    let item = section.take("revocation")?;
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
    if jti_claim.is_none() {
        item.warn(
            "single tokens cannot be revoked: with `jti_claim = false` the gateway does not read their ids",
            "write `jti_claim = \"jti\"` if tokens have one",
        );
    }
    Some(store)
}

/// SimpleJWT writes the realm between quotes without escaping it.
pub(super) fn realm(section: &mut Section<'_>) -> String {
    let Some(text) = section.take("realm").and_then(|item| item.text()) else {
        return defaults::REALM.to_owned();
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

fn rules(section: &mut Section<'_>, profile: Profile) -> Rules {
    let default = Rules::of(profile);
    let token_type_item = section.take("token_type_claim");
    let token_type_claim = claim_or_false(token_type_item.as_ref(), default.token_type_claim);
    if let (Some(item), None, Profile::SimpleJwt) = (&token_type_item, &token_type_claim, profile)
        && item.is_false()
    {
        item.warn(
            "refresh tokens are accepted as access tokens: only this claim distinguishes them",
            "write `token_type_claim = \"token_type\"` if the tokens have it",
        );
    }
    Rules {
        issuer: accepted(section, "issuer"),
        audience: accepted(section, "audience"),
        leeway: section.duration_or("leeway", Zero::Allowed, default.leeway),
        max_lifetime: section
            .take("max_lifetime")
            .and_then(|item| item.duration_or_unlimited())
            .unwrap_or(default.max_lifetime),
        user_id_claim: user_id_claim(section, &default.user_id_claim),
        token_type_claim,
        jti_claim: claim_or_false(section.take("jti_claim").as_ref(), default.jti_claim),
        token_types: token_types(section).unwrap_or(default.token_types),
        profile,
    }
}

/// `issuer` and `audience`: one, several, or `false` to skip the check.
pub(super) fn accepted(section: &mut Section<'_>, name: &'static str) -> Vec<String> {
    let Some(item) = section.take(name).filter(|item| !item.is_false()) else {
        return Vec::new();
    };
    let list = item.one_or_more(&format!("{name} = false` to skip this check, or `{name} = \"…\""));
    list.unwrap_or_default()
        .iter()
        .filter_map(Item::non_empty_text)
        .collect()
}

pub(super) fn user_id_claim(section: &mut Section<'_>, default: &str) -> String {
    let written = section.take("user_id_claim").and_then(|item| {
        if item.is_false() {
            item.refuse(
                "this claim is required: it names the user",
                format!("write `user_id_claim = {default:?}`"),
            );
            return None;
        }
        item.non_empty_text()
    });
    written.unwrap_or_else(|| default.to_owned())
}

pub(super) fn claim_or_false(item: Option<&Item<'_>>, default: Option<String>) -> Option<String> {
    match item {
        None => default,
        Some(item) if item.is_false() => None,
        Some(item) => item.non_empty_text().or(default),
    }
}

fn token_types(section: &mut Section<'_>) -> Option<Vec<TokenType>> {
    let list = section
        .take("token_types")?
        .non_empty_list("token_types = [\"access\"]")?;
    let mut types: Vec<TokenType> = Vec::new();
    for item in list {
        let Some(text) = item.text() else { continue };
        let known = [("access", TokenType::Access), ("sliding", TokenType::Sliding)];
        let Some(kind) = text.choice(&known, &[]) else { continue };
        if types.contains(&kind) {
            text.refuse("is listed twice", "remove one of them");
        }
        types.push(kind);
    }
    Some(types)
}

/// `users`, and the keys that depend on it.
fn users(section: &mut Section<'_>, profile: Profile, stores: &Stores) -> Option<Users> {
    let store = match (section.take("users"), profile) {
        (Some(item), _) => store_or_none(&item, stores),
        (None, Profile::Plain | Profile::Rfc9068) => Some(None),
        (None, Profile::SimpleJwt) => {
            section.report_missing(
                "`users` is required",
                "write `users = \"STORE\"` to require an active user in that store, as JWTAuthentication does, or `users = \"none\"` \
                 to trust the claims of the token, as JWTStatelessUserAuthentication does",
            );
            None
        }
    };
    let username_item = section.take("username_claim");
    let username_claim = username_item
        .as_ref()
        .and_then(Item::non_empty_text)
        .unwrap_or_else(|| defaults::USERNAME_CLAIM.to_owned());
    let active_item = section.take("check_user_is_active");
    let check_active = active_item.as_ref().and_then(Item::flag);
    let revoke_item = section.take("check_revoke_token");
    let check_revoke = revoke_item.as_ref().and_then(Item::flag).unwrap_or(false);
    let revoke_claim = section.text_or("revoke_token_claim", defaults::REVOKE_TOKEN_CLAIM);
    let field_item = section.take("user_id_field");
    let fields = [("id", UserIdField::Id), ("username", UserIdField::Username)];
    let field = field_item
        .as_ref()
        .and_then(|item| item.text()?.choice(&fields, &[]))
        .unwrap_or(defaults::USER_ID_FIELD);

    match store? {
        Some(store) => {
            if let Some(item) = &username_item {
                item.refuse(
                    "`username_claim` has no effect: the username comes from the user's record",
                    "remove it, or write `users = \"none\"`",
                );
            }
            if let (Some(item), true, false) = (&revoke_item, check_revoke, stores.has_passwords(&store)) {
                item.refuse(
                    format!("store {:?} has no passwords: it says `password = false`", &*store),
                    "remove `password = false` there, or `check_revoke_token` here",
                );
            }
            let revoke_claim = check_revoke.then_some(revoke_claim);
            Some(Users::Store {
                store,
                field,
                check_active: check_active.unwrap_or(defaults::CHECK_USER_IS_ACTIVE),
                revoke_claim,
            })
        }
        None => {
            let help = "remove it, or write `users = \"STORE\"` with the name of a store";
            if let (Some(item), true) = (&active_item, check_active == Some(true)) {
                item.warn(
                    "`check_user_is_active` has no effect: with `users = \"none\"` no user is looked up",
                    help,
                );
            }
            if let (Some(item), true) = (&revoke_item, check_revoke) {
                item.refuse(
                    "`check_revoke_token` cannot be checked: with `users = \"none\"` there is no record to compare with",
                    help,
                );
            }
            if let (Some(item), UserIdField::Username) = (&field_item, field) {
                item.refuse(
                    "`user_id_field` has no effect: with `users = \"none\"` there is no record that has a username",
                    help,
                );
            }
            Some(Users::Claims { username_claim })
        }
    }
}

/// The name of a store, or `none`: `Some(None)`.
fn store_or_none(item: &Item<'_>, stores: &Stores) -> Option<Option<Arc<str>>> {
    let text = item.text_for("the name of a store", "write the name of a store, or \"none\"")?;
    if text.as_str() == NONE {
        Some(None)
    } else {
        stores.names.find_with(&text, ", or write \"none\"").map(Some)
    }
}
