//! The keys of one issuer: of a JWT authenticator with one, or of a table of `issuers`. They are named like SimpleJWT's settings; the
//! profile sets their defaults.

use std::sync::Arc;

use super::binding::binding;
use super::keys::key_set;
use super::remote_keys::require_issuer_and_audience;
use super::stores::{NONE, Stores};
use crate::config::keys::issuer as keys;
use crate::config::reader::{Declared, Item, Key, Raw, Section};
use authgate_auth::jwt::{Issuer, KeySet, Namespace, Profile, Rules, TokenType, UserIdField, Users};

/// Reads the keys of an issuer, apart from its name: `names` are the accepted values of `iss`.
pub(super) fn issuer(
    section: &mut Section<'_>,
    profile: Profile,
    names: Vec<String>,
    namespace: Namespace,
    stores: &Stores,
) -> Option<Issuer> {
    let keys = key_set(section);
    let audience_item = section.take(&keys::AUDIENCE);
    if let Some(KeySet::Remote(remote)) = &keys {
        require_issuer_and_audience(section, remote, &names, audience_item.as_ref());
    }
    let rules = rules(section, profile, names, accepted_names(audience_item, &keys::AUDIENCE));
    let token_bytes = section.read(&keys::TOKEN_BYTES);
    let users = users(section, profile, stores);
    let binding = binding(section, stores);
    Some(Issuer {
        keys: keys.unwrap_or(KeySet::Static(Vec::new())),
        token_bytes,
        rules,
        users: users?,
        binding,
        namespace,
    })
}

fn rules(section: &mut Section<'_>, profile: Profile, issuer: Vec<String>, audience: Vec<String>) -> Rules {
    let default = Rules::of(profile);
    let token_type_item = section.take(&keys::TOKEN_TYPE_CLAIM);
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
        issuer,
        audience,
        leeway: section.read(&keys::LEEWAY),
        max_lifetime: section.read(&keys::MAX_LIFETIME),
        user_id_claim: user_id_claim(section.take(&keys::USER_ID_CLAIM).as_ref(), default.user_id_claim),
        token_type_claim,
        jti_claim: claim_or_false(section.take(&keys::JTI_CLAIM).as_ref(), default.jti_claim),
        token_types: token_types(section).unwrap_or(default.token_types),
        profile,
    }
}

/// `issuer` and `audience`: one, several, or `false` to skip the check.
pub(super) fn accepted(section: &mut Section<'_>, key: &'static Key<Raw>) -> Vec<String> {
    accepted_names(section.take(key), key)
}

fn accepted_names(item: Option<Item<'_>>, key: &dyn Declared) -> Vec<String> {
    let Some(item) = item.filter(|item| !item.is_false()) else {
        return Vec::new();
    };
    let list = item.one_or_more(key);
    list.unwrap_or_default()
        .iter()
        .filter_map(Item::non_empty_text)
        .collect()
}

pub(super) fn user_id_claim(item: Option<&Item<'_>>, default: String) -> String {
    let written = item.and_then(|item| {
        if item.is_false() {
            item.refuse(
                "this claim is required: it names the user",
                format!("write `user_id_claim = {default:?}`"),
            );
            return None;
        }
        item.non_empty_text()
    });
    written.unwrap_or(default)
}

pub(super) fn claim_or_false(item: Option<&Item<'_>>, default: Option<String>) -> Option<String> {
    match item {
        None => default,
        Some(item) if item.is_false() => None,
        Some(item) => item.non_empty_text().or(default),
    }
}

fn token_types(section: &mut Section<'_>) -> Option<Vec<TokenType>> {
    let list = section.take(&keys::TOKEN_TYPES)?.non_empty_list(&keys::TOKEN_TYPES)?;
    let mut types: Vec<TokenType> = Vec::new();
    for item in list {
        let Some(text) = item.text() else { continue };
        let Some(kind) = text.choice(keys::TYPES.0) else {
            continue;
        };
        if types.contains(&kind) {
            text.refuse("is listed twice", "remove one of them");
        }
        types.push(kind);
    }
    Some(types)
}

/// `users`, and the keys that depend on it.
fn users(section: &mut Section<'_>, profile: Profile, stores: &Stores) -> Option<Users> {
    let store = match (section.take(&keys::USERS), profile) {
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
    let username_item = section.take(&keys::USERNAME_CLAIM);
    let username_claim = keys::USERNAME_CLAIM.read_or_default(username_item.as_ref());
    let active_item = section.take(&keys::CHECK_USER_IS_ACTIVE);
    let check_active = keys::CHECK_USER_IS_ACTIVE.read_or_default(active_item.as_ref());
    let revoke_item = section.take(&keys::CHECK_REVOKE_TOKEN);
    let check_revoke = keys::CHECK_REVOKE_TOKEN.read_or_default(revoke_item.as_ref());
    let revoke_claim = section.read(&keys::REVOKE_TOKEN_CLAIM);
    let field_item = section.take(&keys::USER_ID_FIELD);
    let field = keys::USER_ID_FIELD.read_or_default(field_item.as_ref());

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
                check_active,
                revoke_claim,
            })
        }
        None => {
            let help = "remove it, or write `users = \"STORE\"` with the name of a store";
            if let (Some(item), true) = (&active_item, check_active) {
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
pub(super) fn store_or_none(item: &Item<'_>, stores: &Stores) -> Option<Option<Arc<str>>> {
    let text = item.text_for("the name of a store", "write the name of a store, or \"none\"")?;
    if text.as_str() == NONE {
        Some(None)
    } else {
        stores.names.find_with(&text, ", or write \"none\"").map(Some)
    }
}
