//! What `manage.py dumpdata` writes of users, groups and DRF tokens, as records. Pure: it knows no store and writes nothing.
//!
//! No message here holds a value of the dump that could be a key or a password hash.

mod fields;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value};

use self::fields::{key, natural, password_md5, seconds, text};
use crate::auth::record::{TokenRecord, UserRecord};
use crate::auth::store::{TokenDigest, UserKey};
use crate::cli::values::digest_text;
use crate::identity::{Text, UserId};

/// How the site calls what differs from site to site.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Names {
    /// The user model of a Django dump, as app.model
    #[arg(long, value_name = "APP.MODEL", default_value = "auth.user")]
    pub(super) user_model: String,
    /// The field of the user model that holds the username
    #[arg(long, value_name = "FIELD", default_value = "username")]
    pub(super) username_field: String,
}

/// A dump, object by object.
#[derive(Debug)]
pub(super) struct Dump<'n> {
    names: &'n Names,
    groups: HashMap<String, Text>,
    users: Vec<DumpedUser>,
    tokens: Vec<DumpedToken>,
    /// How many objects of other models there were.
    others: BTreeMap<String, usize>,
    /// What is wrong, object by object.
    pub(super) problems: Vec<String>,
}

#[derive(Debug)]
struct DumpedUser {
    at: usize,
    record: UserRecord,
    /// Primary keys or natural keys.
    groups: Vec<Value>,
}

#[derive(Debug)]
struct DumpedToken {
    at: usize,
    digest: TokenDigest,
    created: Option<i64>,
    /// A primary key or a natural key.
    user: Value,
}

/// The records of a dump.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) users: Vec<UserRecord>,
    pub(super) tokens: Vec<(TokenDigest, TokenRecord)>,
    /// Tokens whose user is nowhere.
    pub(super) without_user: usize,
    pub(super) others: BTreeMap<String, usize>,
    pub(super) problems: Vec<String>,
}

impl<'n> Dump<'n> {
    pub(super) fn new(names: &'n Names) -> Self {
        let (groups, users, tokens) = (HashMap::new(), Vec::new(), Vec::new());
        Self {
            names,
            groups,
            users,
            tokens,
            others: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// Takes the object at that place of the dump.
    pub(super) fn take(&mut self, at: usize, mut object: Map<String, Value>) {
        let model = object
            .get("model")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_ascii_lowercase();
        let pk = object.remove("pk").unwrap_or(Value::Null);
        let Some(Value::Object(fields)) = object.remove("fields") else {
            return self.problem(at, &model, "has no `fields`");
        };
        let taken = match model.as_str() {
            "auth.group" => self.take_group(&pk, &fields),
            "authtoken.token" => self.take_token(at, &pk, fields),
            _ if model.eq_ignore_ascii_case(&self.names.user_model) => self.take_user(at, &pk, fields),
            _ => {
                *self.others.entry(model.clone()).or_default() += 1;
                Ok(())
            }
        };
        if let Err(problem) = taken {
            self.problem(at, &format!("{model}{}", shown(&model, &pk)), &problem);
        }
    }

    fn problem(&mut self, at: usize, what: &str, problem: &str) {
        self.problems.push(format!("object {at} ({what}): {problem}"));
    }

    fn take_group(&mut self, pk: &Value, fields: &Map<String, Value>) -> Result<(), String> {
        let name = text(fields, "name")?.ok_or("has no `name`")?;
        // With --natural-primary there is no key, and then nothing points to it by key.
        if let Some(pk) = key(pk) {
            self.groups.insert(pk, name);
        }
        Ok(())
    }

    fn take_user(&mut self, at: usize, pk: &Value, mut fields: Map<String, Value>) -> Result<(), String> {
        let id = key(pk).ok_or("has no primary key; dump without --natural-primary")?;
        let id = UserId::new(&id).map_err(|_| "its primary key cannot be an id of 1 to 255 bytes")?;
        let groups = match fields.remove("groups") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(groups)) => groups,
            Some(_) => return Err("`groups` is no list".to_owned()),
        };
        let active = match fields.get("is_active") {
            // A model without the field: everybody is active, as in Django.
            None => true,
            Some(active) => active.as_bool().ok_or("`is_active` is neither true nor false")?,
        };
        let password_md5 = match fields.get("password") {
            None | Some(Value::Null) => None,
            Some(password) => Some(password_md5(password.as_str().ok_or("`password` is no text")?)),
        };
        let (username, email) = (text(&fields, &self.names.username_field)?, text(&fields, "email")?);
        let record = UserRecord {
            id,
            username,
            email,
            groups: Vec::new(),
            active,
            password_md5,
            attributes: Map::new(),
        };
        self.users.push(DumpedUser { at, record, groups });
        Ok(())
    }

    fn take_token(&mut self, at: usize, pk: &Value, mut fields: Map<String, Value>) -> Result<(), String> {
        // DRF's key is the primary key; a model of one's own may have it beside another.
        let key = fields
            .get("key")
            .unwrap_or(pk)
            .as_str()
            .filter(|key| !key.is_empty())
            .ok_or("has no key")?;
        let digest = TokenDigest::of(key.as_bytes());
        let created = match fields.get("created") {
            None | Some(Value::Null) => None,
            Some(created) => Some(created.as_str().and_then(seconds).ok_or("`created` is no time")?),
        };
        let user = fields.remove("user").ok_or("has no `user`")?;
        self.tokens.push(DumpedToken {
            at,
            digest,
            created,
            user,
        });
        Ok(())
    }

    /// Joins what belongs together. `find` knows the users that are not in the dump.
    ///
    /// # Errors
    /// `find` failed.
    pub(super) fn finish<E>(
        mut self,
        mut find: impl FnMut(UserKey<'_>) -> Result<Option<UserId>, E>,
    ) -> Result<Records, E> {
        let mut records = Records::default();
        for DumpedUser { at, mut record, groups } in std::mem::take(&mut self.users) {
            for group in &groups {
                match self.group(group) {
                    Some(name) => record.groups.push(name),
                    None => {
                        let what = format!("{} {}", self.names.user_model, record.id.as_str());
                        self.problem(
                            at,
                            &what,
                            &format!("group {group} is not in the dump; dump auth.group as well"),
                        );
                    }
                }
            }
            records.users.push(record);
        }
        let ids: HashSet<&UserId> = records.users.iter().map(|user| &user.id).collect();
        let by_name: HashMap<&str, &UserId> = records
            .users
            .iter()
            .filter_map(|user| Some((user.username.as_ref()?.as_str(), &user.id)))
            .collect();
        for DumpedToken {
            at,
            digest,
            created,
            user,
        } in std::mem::take(&mut self.tokens)
        {
            let found = match (key(&user).map(|key| UserId::new(&key)), natural(&user)) {
                (Some(Ok(id)), _) if ids.contains(&id) => Some(id),
                (Some(Ok(id)), _) => find(UserKey::Id(&id))?,
                (_, Some(name)) if by_name.contains_key(name) => by_name.get(name).map(|id| (*id).clone()),
                (_, Some(name)) => find(UserKey::Name(name))?,
                (Some(Err(_)) | None, None) => {
                    let what = format!("authtoken.token {}", digest_text(&digest));
                    self.problem(
                        at,
                        &what,
                        "`user` is neither a primary key nor a natural key of one name",
                    );
                    continue;
                }
            };
            match found {
                None => records.without_user += 1,
                Some(user) => {
                    let token = TokenRecord {
                        user,
                        created,
                        expires: None,
                        scopes: Vec::new(),
                        name: None,
                        revoked: None,
                    };
                    records.tokens.push((digest, token));
                }
            }
        }
        (records.others, records.problems) = (self.others, self.problems);
        Ok(records)
    }

    fn group(&self, group: &Value) -> Option<Text> {
        match natural(group) {
            Some(name) => Text::new(name).ok(),
            None => self.groups.get(&key(group)?).cloned(),
        }
    }
}

/// The primary key for a message; a token's is its key, so its digest stands in.
fn shown(model: &str, pk: &Value) -> String {
    match (model, key(pk)) {
        ("authtoken.token", Some(key)) => format!(" {}", digest_text(&TokenDigest::of(key.as_bytes()))),
        (_, Some(key)) => format!(" {key:?}"),
        (_, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use serde_json::json;

    use super::*;

    fn names() -> Names {
        Names {
            user_model: "auth.user".to_owned(),
            username_field: "username".to_owned(),
        }
    }

    fn read(names: &Names, objects: &Value) -> Records {
        let mut dump = Dump::new(names);
        for (at, object) in objects.as_array().expect("a list").iter().enumerate() {
            dump.take(at + 1, object.as_object().expect("an object").clone());
        }
        let elsewhere = |key: UserKey<'_>| match key {
            UserKey::Id(id) if id.as_str() == "77" => Ok(Some(id.clone())),
            UserKey::Name("cyd") => Ok(UserId::new("78").ok()),
            UserKey::Id(_) | UserKey::Name(_) => Ok::<_, Infallible>(None),
        };
        dump.finish(elsewhere).expect("infallible")
    }

    #[test]
    fn a_dump_by_primary_or_natural_keys_is_the_same() {
        let user = |groups: Value| {
            json!({"model": "auth.user", "pk": 42, "fields": {"password": "pbkdf2_sha256$1$a$b", "username": "ada",
            "email": "", "is_active": false, "groups": groups}})
        };
        let token = |user: Value| json!({"model": "authtoken.token", "pk": "canary", "fields": {"user": user, "created": "2026-11-23T23:39:10.837Z"}});
        let group = json!({"model": "auth.group", "pk": 4, "fields": {"name": "staff", "permissions": []}});
        let session = json!({"model": "sessions.session", "pk": "x", "fields": {}});
        let by_key = read(&names(), &json!([token(json!(42)), user(json!([4])), group, session]));
        let by_name = read(&names(), &json!([user(json!([["staff"]])), token(json!(["ada"]))]));
        assert_eq!((&by_key.users, &by_key.tokens), (&by_name.users, &by_name.tokens));
        let ada = &by_key.users[0];
        assert_eq!(
            (ada.id.as_str(), ada.active, ada.groups[0].as_str(), ada.email.is_none()),
            ("42", false, "staff", true)
        );
        assert_eq!(ada.password_md5.as_deref(), Some("D189514B36275B5C49334DB961F35162"));
        assert_eq!(by_key.tokens[0].0, TokenDigest::of(b"canary"));
        assert_eq!(
            (by_key.tokens[0].1.created, by_key.others.len()),
            (Some(1_795_477_150), 1)
        );
        assert_eq!((by_key.problems, by_name.problems), (vec![], vec![]));
    }

    #[test]
    fn users_may_be_in_the_store_or_nowhere() {
        let token = |user: Value| json!({"model": "authtoken.token", "pk": "canary", "fields": {"user": user}});
        let records = read(
            &names(),
            &json!([
                token(json!(77)),
                token(json!(["cyd"])),
                token(json!(79)),
                token(json!(["dee"]))
            ]),
        );
        let users: Vec<_> = records.tokens.iter().map(|(_, token)| token.user.as_str()).collect();
        assert_eq!(
            (users, records.without_user, records.problems.len()),
            (vec!["77", "78"], 2, 0)
        );
    }

    #[test]
    fn a_custom_user_model_is_read_by_its_names() {
        let names = Names {
            user_model: "Accounts.User".to_owned(),
            username_field: "email".to_owned(),
        };
        let user = json!({"model": "accounts.user", "pk": "0b5e-uuid", "fields": {"email": "ada@example.com"}});
        let records = read(&names, &json!([user]));
        let ada = &records.users[0];
        let username = ada.username.as_ref().map(Text::as_str);
        assert_eq!(
            (ada.id.as_str(), username, ada.active),
            ("0b5e-uuid", Some("ada@example.com"), true)
        );
    }

    #[test]
    fn each_bad_object_is_named_and_no_key_is() {
        let user = |pk: Value, fields: Value| json!({"model": "auth.user", "pk": pk, "fields": fields});
        let token = |pk: Value, fields: Value| json!({"model": "authtoken.token", "pk": pk, "fields": fields});
        let bad = [
            json!({"model": "auth.user", "pk": 1}),
            user(Value::Null, json!({})),
            user(json!(1), json!({"username": "a\nb"})),
            user(json!(1), json!({"is_active": "yes"})),
            user(json!(1), json!({"groups": [9]})),
            user(json!(1), json!({"password": 1})),
            token(json!(""), json!({"user": 1})),
            token(json!("canary"), json!({})),
            token(json!("canary"), json!({"user": 1, "created": "yesterday"})),
            token(json!("canary"), json!({"user": ["a", "b"]})),
            token(json!("canary"), json!({"user": 1.5})),
        ];
        for object in bad {
            let records = read(&names(), &json!([object]));
            assert_eq!(records.problems.len(), 1, "{object}");
            assert!(
                records.problems[0].starts_with("object 1 (auth"),
                "{:?}",
                records.problems
            );
            assert!(!records.problems[0].contains("canary"), "{:?}", records.problems);
        }
    }
}
