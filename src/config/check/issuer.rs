//! The keys of one issuer: of a JWT authenticator with one, or of a table of `issuers`. They are named like SimpleJWT's settings; the
//! profile sets their defaults.

use std::sync::Arc;

use authgate_auth::jwt::{Issuer, KeySet, Namespace, Profile, Rules, TokenType, UserIdField, Users};
use bytesize::ByteSize;

use super::binding::binding;
use super::keys::key_set;
use super::remote_keys::require_issuer_and_audience;
use super::stores::{NONE, Stores};
use crate::config::defaults;
use crate::config::reader::{Item, Section, Zero};

/// All keys that [`issuer`] reads, and `issuer` itself. An authenticator with `issuers` has none of them.
pub(super) const KEYS: [&str; 23] = [
    "keys",
    "jwks",
    "discovery",
    "algorithms",
    "dpop",
    "dpop_window",
    "dpop_replay",
    "certificate_bound",
    "issuer",
    "audience",
    "leeway",
    "max_lifetime",
    "token_bytes",
    "user_id_claim",
    "token_type_claim",
    "jti_claim",
    "token_types",
    "user_id_field",
    "username_claim",
    "users",
    "check_user_is_active",
    "check_revoke_token",
    "revoke_token_claim",
];

/// Reads the keys of an issuer, apart from its name: `names` are the accepted values of `iss`.
pub(super) fn issuer(
    section: &mut Section<'_>,
    profile: Profile,
    names: Vec<String>,
    namespace: Namespace,
    stores: &Stores,
) -> Option<Issuer> {
    let keys = key_set(section);
    let audience_item = section.take("audience");
    if let Some(KeySet::Remote(remote)) = &keys {
        require_issuer_and_audience(section, remote, &names, audience_item.as_ref());
    }
    let rules = rules(section, profile, names, accepted_names(audience_item, "audience"));
    let token_bytes = token_bytes(section);
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

/// `token_bytes`: longer tokens are refused unread.
pub(super) fn token_bytes(section: &mut Section<'_>) -> usize {
    let item = section.take("token_bytes");
    let (min, max) = (ByteSize::b(64), ByteSize::mib(1));
    item.and_then(|item| item.size(min, max))
        .unwrap_or(defaults::TOKEN_BYTES)
}

fn rules(section: &mut Section<'_>, profile: Profile, issuer: Vec<String>, audience: Vec<String>) -> Rules {
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
        issuer,
        audience,
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
    accepted_names(section.take(name), name)
}

fn accepted_names(item: Option<Item<'_>>, name: &'static str) -> Vec<String> {
    let Some(item) = item.filter(|item| !item.is_false()) else {
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
pub(super) fn store_or_none(item: &Item<'_>, stores: &Stores) -> Option<Option<Arc<str>>> {
    let text = item.text_for("the name of a store", "write the name of a store, or \"none\"")?;
    if text.as_str() == NONE {
        Some(None)
    } else {
        stores.names.find_with(&text, ", or write \"none\"").map(Some)
    }
}
