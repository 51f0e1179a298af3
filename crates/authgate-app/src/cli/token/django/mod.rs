//! Parses the users, groups and tokens of `manage.py dumpdata`. Pure: uses no store and writes nothing.
//!
//! Messages never contain values of the dump that could be keys or password hashes.

mod fields;

use authgate_auth::record::UserRecord;
use authgate_auth::store::{Digests, TokenDigest};
use authgate_core::identity::{Text, UserId};
use serde_json::{Map, Value};

use self::fields::{key, natural, password_md5, seconds, text};
use super::dump_records::Group;
use super::dump_token::{DumpToken, Owner};
use crate::cli::values::digest_text;
use crate::provisioning::{TokenMember, UserMember, UserUpdate};

const DEFAULT_USER_MODEL: &str = "auth.user";

/// Names that differ between Django sites.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Names {
    /// The user model of a Django dump, as app.model [default: auth.user]
    #[arg(long, value_name = "APP.MODEL")]
    user_model: Option<String>,
    /// The field of the user model with the username
    #[arg(long, value_name = "FIELD", default_value = "username")]
    pub(super) username_field: String,
}

impl Names {
    pub(super) fn user_model(&self) -> &str {
        self.user_model.as_deref().unwrap_or(DEFAULT_USER_MODEL)
    }
}

/// A parsed object of a dump.
#[derive(Debug)]
pub(super) enum Object {
    /// A group. Without a key, users can refer to it by name only.
    Group {
        key: Option<String>,
        name: Text,
    },
    User {
        update: UserUpdate,
        groups: Vec<Group>,
    },
    Token {
        digest: TokenDigest,
        token: DumpToken,
    },
    /// An object that is not imported.
    Other {
        model: String,
        like_user: bool,
    },
}

/// Parses object number `at` of the dump.
///
/// # Errors
/// The problem of the object.
pub(super) fn read(
    names: &Names,
    digests: Digests,
    at: usize,
    mut object: Map<String, Value>,
) -> Result<Object, String> {
    let model = object
        .get("model")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_ascii_lowercase();
    let pk = object.remove("pk").unwrap_or(Value::Null);
    let Some(Value::Object(fields)) = object.remove("fields") else {
        return Err(format!("object {at} ({model}): `fields` is missing"));
    };
    let read = match model.as_str() {
        "auth.group" => group(&pk, &fields),
        "authtoken.token" => authtoken(digests, &pk, &fields),
        "knox.authtoken" => knox(&pk, &fields),
        _ if model.eq_ignore_ascii_case(names.user_model()) => user(names, &pk, fields),
        _ => Ok(Object::Other {
            like_user: fields.contains_key("password"),
            model: model.clone(),
        }),
    };
    read.map_err(|problem| format!("object {at} ({model}{}): {problem}", shown(&model, &pk)))
}

fn group(pk: &Value, fields: &Map<String, Value>) -> Result<Object, String> {
    let name = text(fields, "name")?.ok_or("`name` is missing")?;
    // With --natural-primary there is no key, and no user refers to one.
    Ok(Object::Group { key: key(pk), name })
}

/// Fields that the model does not have keep their stored values.
fn user(names: &Names, pk: &Value, mut fields: Map<String, Value>) -> Result<Object, String> {
    let id = key(pk).ok_or("the primary key is missing; run dumpdata without --natural-primary")?;
    let id = UserId::new(&id).map_err(
        |_| "the primary key must be 1 to 255 bytes, without control characters and without leading or trailing spaces",
    )?;
    let mut keeps = vec![UserMember::Attributes];
    for (field, member) in [
        (names.username_field.as_str(), UserMember::Username),
        ("email", UserMember::Email),
        ("groups", UserMember::Groups),
        ("is_active", UserMember::Active),
        ("password", UserMember::PasswordMd5),
    ] {
        if !fields.contains_key(field) {
            keeps.push(member);
        }
    }
    let groups = match fields.remove("groups") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(groups)) => groups.iter().map(group_of).collect::<Result<_, _>>()?,
        Some(_) => return Err("`groups` is not a list".to_owned()),
    };
    let active = match fields.get("is_active") {
        // A model without the field: all users are active, as in Django.
        None => true,
        Some(active) => active.as_bool().ok_or("`is_active` is neither true nor false")?,
    };
    let password_md5 = match fields.get("password") {
        None | Some(Value::Null) => None,
        Some(password) => Some(password_md5(password.as_str().ok_or("`password` is not a string")?)),
    };
    let record = UserRecord {
        id,
        username: text(&fields, &names.username_field)?,
        email: text(&fields, "email")?,
        groups: Vec::new(),
        active,
        password_md5,
        attributes: Map::new(),
    };
    let update = UserUpdate { record, keeps };
    Ok(Object::User { update, groups })
}

fn group_of(group: &Value) -> Result<Group, String> {
    match (natural(group), key(group)) {
        (Some(name), _) => match Text::new(name) {
            Ok(_) => Ok(Group::Name(name.to_owned())),
            Err(problem) => Err(format!(
                "the name of a group has {problem}, which cannot be sent in a header"
            )),
        },
        (None, Some(key)) => Ok(Group::Key(key)),
        (None, None) => Err("a group is neither a primary key nor a natural key of one name".to_owned()),
    }
}

/// A token of DRF.
fn authtoken(digests: Digests, pk: &Value, fields: &Map<String, Value>) -> Result<Object, String> {
    // DRF's key is the primary key; a custom model may have a separate `key` field.
    let key = fields
        .get("key")
        .unwrap_or(pk)
        .as_str()
        .filter(|key| !key.is_empty())
        .ok_or("the key is missing")?;
    let digest = digests
        .of(key.as_bytes())
        .into_iter()
        .flatten()
        .next()
        .ok_or("the store's `digest` setting accepts no such key")?;
    let mut token = DumpToken::new(&digest, owner(fields)?);
    token.created = time(fields, "created")?;
    token.keeps = vec![TokenMember::Expires, TokenMember::Scopes, TokenMember::Name];
    Ok(Object::Token { digest, token })
}

/// A token of django-rest-knox, which stores digests only.
fn knox(pk: &Value, fields: &Map<String, Value>) -> Result<Object, String> {
    if fields.get("salt").is_some_and(|salt| salt.as_str() != Some("")) {
        return Err(
            "its digest is salted (django-rest-knox before 4.2), so it cannot be looked up; upgrade \
             django-rest-knox and let users log in again"
                .to_owned(),
        );
    }
    let digest = fields
        .get("digest")
        .unwrap_or(pk)
        .as_str()
        .and_then(TokenDigest::from_hex);
    let digest = digest.ok_or("the digest is not 64 or 128 lower-case hexadecimal digits")?;
    let mut token = DumpToken::new(&digest, owner(fields)?);
    token.created = time(fields, "created")?;
    token.expires = time(fields, "expiry")?;
    token.keeps = vec![TokenMember::Scopes, TokenMember::Name];
    Ok(Object::Token { digest, token })
}

fn time(fields: &Map<String, Value>, name: &str) -> Result<Option<i64>, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(time) => match time.as_str().and_then(seconds) {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(format!("`{name}` is not a time")),
        },
    }
}

fn owner(fields: &Map<String, Value>) -> Result<Owner, String> {
    let user = fields.get("user").ok_or("`user` is missing")?;
    match (key(user), natural(user)) {
        (Some(id), _) if UserId::new(&id).is_ok() => Ok(Owner::Id(id)),
        (None, Some(name)) => Ok(Owner::Name(name.to_owned())),
        (_, _) => Err("`user` is neither a primary key nor a natural key of one name".to_owned()),
    }
}

/// The primary key for a message. For tokens it may be the key, so its digest is shown instead.
fn shown(model: &str, pk: &Value) -> String {
    match (model, key(pk)) {
        ("authtoken.token", Some(key)) => format!(" {}", digest_text(&TokenDigest::of(key.as_bytes()))),
        ("knox.authtoken", _) | (_, None) => String::new(),
        (_, Some(key)) => format!(" {key:?}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names() -> Names {
        Names {
            user_model: None,
            username_field: "username".to_owned(),
        }
    }

    fn one(names: &Names, object: &Value) -> Result<Object, String> {
        read(
            names,
            Digests::SHA256,
            1,
            object.as_object().expect("an object").clone(),
        )
    }

    fn user(object: &Value) -> (UserUpdate, Vec<Group>) {
        match one(&names(), object) {
            Ok(Object::User { update, groups }) => (update, groups),
            other => panic!("{other:?} is no user"),
        }
    }

    fn token(object: &Value) -> (TokenDigest, DumpToken) {
        match one(&names(), object) {
            Ok(Object::Token { digest, token }) => (digest, token),
            other => panic!("{other:?} is no token"),
        }
    }

    #[test]
    fn users_and_tokens_have_primary_or_natural_keys() {
        let (ada, groups) = user(
            &json!({"model": "auth.user", "pk": 42, "fields": {"password": "pbkdf2_sha256$1$a$b", "username": "ada",
            "email": "", "is_active": false, "groups": [4, ["staff"]]}}),
        );
        assert_eq!(
            (ada.record.id.as_str(), ada.record.active, ada.record.email.is_none()),
            ("42", false, true)
        );
        assert_eq!(
            ada.record.password_md5.as_deref(),
            Some("D189514B36275B5C49334DB961F35162")
        );
        assert_eq!(ada.keeps, [UserMember::Attributes]);
        assert!(matches!(&groups[..], [Group::Key(key), Group::Name(name)] if key == "4" && name == "staff"));
        for (of, expected) in [
            (json!(42), Owner::Id("42".to_owned())),
            (json!(["ada"]), Owner::Name("ada".to_owned())),
        ] {
            let (digest, token) = token(
                &json!({"model": "authtoken.token", "pk": "canary", "fields": {"user": of, "created": "2026-11-23T23:39:10.837Z"}}),
            );
            assert_eq!(
                (digest, token.created),
                (TokenDigest::of(b"canary"), Some(1_795_477_150))
            );
            assert_eq!(token.owner, expected);
        }
        let other = one(
            &names(),
            &json!({"model": "accounts.User", "pk": 1, "fields": {"password": "x"}}),
        );
        assert!(matches!(other, Ok(Object::Other { model, like_user: true }) if model == "accounts.user"));
    }

    #[test]
    fn a_custom_user_model_keeps_stored_values_of_fields_it_lacks() {
        let names = Names {
            user_model: Some("Accounts.User".to_owned()),
            username_field: "email".to_owned(),
        };
        let object = json!({"model": "accounts.user", "pk": "0b5e-uuid", "fields": {"email": "ada@example.com"}});
        let Ok(Object::User { update, .. }) = one(&names, &object) else {
            panic!("a user");
        };
        let username = update.record.username.as_ref().map(Text::as_str);
        assert_eq!(
            (update.record.id.as_str(), username, update.record.active),
            ("0b5e-uuid", Some("ada@example.com"), true)
        );
        use UserMember::{Active, Attributes, Groups, PasswordMd5};
        assert_eq!(update.keeps, [Attributes, Groups, Active, PasswordMd5]);
    }

    #[test]
    fn knox_tokens_are_imported_with_their_digests() {
        let hex = "0a".repeat(64);
        let (digest, token) = token(
            &json!({"model": "knox.authtoken", "pk": hex, "fields": {"token_key": "9f4d0a1b2c3d4e5",
            "user": 42, "created": "2026-11-23T23:39:10.837Z", "expiry": "2026-11-24T09:39:10.837Z"}}),
        );
        assert_eq!((digest.to_hex(), digest.algorithm()), (hex.clone(), "sha512"));
        assert_eq!(
            (token.owner, token.created, token.expires),
            (Owner::Id("42".to_owned()), Some(1_795_477_150), Some(1_795_513_150))
        );
        let salted = json!({"model": "knox.authtoken", "pk": hex, "fields": {"salt": "00ff", "user": 42}});
        assert!(one(&names(), &salted).is_err_and(|problem| problem.contains("4.2")));
    }

    #[test]
    fn errors_name_the_object_and_never_the_key() {
        let user = |pk: Value, fields: Value| json!({"model": "auth.user", "pk": pk, "fields": fields});
        let token = |pk: Value, fields: Value| json!({"model": "authtoken.token", "pk": pk, "fields": fields});
        let invalid = [
            json!({"model": "auth.user", "pk": 1}),
            user(Value::Null, json!({})),
            user(json!(1), json!({"username": "a\nb"})),
            user(json!(1), json!({"is_active": "yes"})),
            user(json!(1), json!({"groups": [1.5]})),
            user(json!(1), json!({"groups": [["a\nb"]]})),
            user(json!(1), json!({"password": 1})),
            token(json!(""), json!({"user": 1})),
            token(json!("canary"), json!({})),
            token(json!("canary"), json!({"user": 1, "created": "yesterday"})),
            token(json!("canary"), json!({"user": ["a", "b"]})),
            token(json!("canary"), json!({"user": 1.5})),
            json!({"model": "authtoken.token", "pk": "canary"}),
        ];
        for object in invalid {
            let problem = one(&names(), &object).expect_err("not as it should be");
            assert!(problem.starts_with("object 1 (auth"), "{problem}");
            assert!(!problem.contains("canary"), "{problem}");
        }
    }
}
