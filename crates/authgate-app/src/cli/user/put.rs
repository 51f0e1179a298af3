//! `authgate user put`: writes user records from flags or from a file.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use authgate_auth::record::UserRecord;
use authgate_core::identity::{Text, UserId};
use authgate_core::printable::without_values;
use serde_json::{Deserializer, Value};

use super::summary;
use crate::cli::stores::StoreName;
use crate::cli::{Failure, StoreContext, output, values};
use crate::provisioning::{Import, UserUpdate, WritableStore};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The user's id; for Django, the primary key
    #[arg(long, value_parser = values::user_id, required_unless_present = "file")]
    id: Option<UserId>,
    /// The username
    #[arg(long, value_name = "NAME", value_parser = values::text)]
    username: Option<Text>,
    /// The email address
    #[arg(long, value_name = "ADDRESS", value_parser = values::text)]
    email: Option<Text>,
    /// A group; repeatable
    #[arg(long = "group", value_name = "NAME", value_parser = values::text)]
    groups: Vec<Text>,
    /// Store the user as disabled
    #[arg(long)]
    inactive: bool,
    /// An attribute that headers for upstreams can use; the value is JSON if it parses, otherwise text. Repeatable
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = values::attribute)]
    attributes: Vec<(String, Value)>,
    /// Read the records from a file, or `-` for standard input: one JSON object or several in sequence
    #[arg(long, conflicts_with_all = ["id", "username", "email", "groups", "inactive", "attributes"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreName,
    /// Print the stored records as a JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, context: &StoreContext<'_>) -> Result<(), Failure> {
    let users = match (&args.file, &args.id) {
        (Some(file), _) => parse(file, &values::file(file)?)?,
        (None, Some(id)) => vec![UserRecord {
            id: id.clone(),
            username: args.username.clone(),
            email: args.email.clone(),
            groups: args.groups.clone(),
            active: !args.inactive,
            password_md5: None,
            attributes: args.attributes.iter().cloned().collect(),
        }],
        (None, None) => return Err(Failure::Usage("--id or --file is required".to_owned())),
    };
    if let Some(problem) = duplicates(users.iter()).first() {
        return Err(Failure::Failed(format!("{problem}; nothing was written")));
    }
    let mut store = args.store.open_to_write(context)?;
    let enabled = check_stored(&users, &mut store)?;
    let mut import = store.import(values::now())?;
    let updates: Vec<UserUpdate> = users.iter().cloned().map(UserUpdate::from).collect();
    for batch in updates.chunks(Import::BATCH) {
        import.users(batch)?;
    }
    import.finish()?;
    for id in enabled {
        output::note(format_args!(
            "user {id} was disabled and is now active; pass --inactive to keep the user disabled"
        ));
    }
    if args.json {
        return output::json_array(&users);
    }
    output::data(|out| {
        users
            .iter()
            .try_for_each(|user| writeln!(out, "stored {}", summary(user)))
    })
}

/// Parses a sequence of JSON objects.
fn parse(file: &Path, text: &str) -> Result<Vec<UserRecord>, Failure> {
    let users = Deserializer::from_str(text)
        .into_iter()
        .collect::<Result<Vec<UserRecord>, _>>();
    let failed = |problem: String| Failure::Failed(format!("{}: {problem}; nothing was written", file.display()));
    let users = users.map_err(|error| failed(without_values(&error.to_string()).into_owned()))?;
    let is_md5 = |text: &str| text.len() == 32 && text.bytes().all(|at| matches!(at, b'0'..=b'9' | b'A'..=b'F'));
    match users
        .iter()
        .find(|user| user.password_md5.as_deref().is_some_and(|md5| !is_md5(md5)))
    {
        Some(user) => Err(failed(format!(
            "user {}: password_md5 is not 32 upper-case hexadecimal digits",
            user.id.as_str()
        ))),
        None if users.is_empty() => Err(failed("the file has no records".to_owned())),
        None => Ok(users),
    }
}

/// Fails if another stored user has one of the usernames. Returns the ids of disabled users that become active.
fn check_stored(users: &[UserRecord], store: &mut WritableStore) -> Result<Vec<String>, Failure> {
    let ids: HashSet<&UserId> = users.iter().map(|user| &user.id).collect();
    let mut enabled = Vec::new();
    for user in users {
        let holder = match &user.username {
            Some(name) => store
                .find_user_by_name(name.as_str())?
                .filter(|holder| !ids.contains(&holder.id)),
            None => None,
        };
        if let (Some(holder), Some(name)) = (holder, &user.username) {
            let holder = holder.id.as_str();
            return Err(Failure::Failed(format!(
                "user {holder} already has the username {name}; nothing was written"
            )));
        }
        if user.active && store.find_user(&user.id)?.is_some_and(|before| !before.active) {
            enabled.push(user.id.as_str().to_owned());
        }
    }
    Ok(enabled)
}

/// Reports repeated users and usernames.
fn duplicates<'u>(users: impl Iterator<Item = &'u UserRecord>) -> Vec<String> {
    let (mut ids, mut names, mut problems) = (HashSet::new(), HashMap::new(), Vec::new());
    for user in users {
        let id = user.id.as_str();
        if !ids.insert(id) {
            problems.push(format!("user {id} appears twice"));
        } else if let Some(name) = &user.username
            && let Some(other) = names.insert(name.as_str(), id)
        {
            problems.push(format!("users {other} and {id} both have the username {name}"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str) -> Result<Vec<UserRecord>, Failure> {
        parse(Path::new("users.json"), text)
    }

    #[test]
    fn records_are_read_in_sequence() {
        let two = users("{\"id\":\"1\",\n\"active\":true}\n{\"id\":\"2\",\"active\":false}\n").expect("two users");
        assert_eq!(two.iter().map(|user| user.active).collect::<Vec<_>>(), [true, false]);
        for invalid in [
            "",
            "[]",
            "{\"id\":\"1\"}",
            "{\"id\":\"1\",\"active\":true",
            "{\"id\":\"1\",\"active\":true,\"password_md5\":\"abc\"}",
        ] {
            assert!(users(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn repeated_users_and_usernames_are_reported() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(duplicates(users(text).expect("users").iter()), expected, "{text}")
        };
        check(
            r#"{"id":"1","username":"a","active":true} {"id":"2","username":"b","active":true} {"id":"3","active":true}"#,
            &[],
        );
        check(
            r#"{"id":"1","active":true} {"id":"1","active":true}"#,
            &["user 1 appears twice"],
        );
        check(
            r#"{"id":"1","username":"a","active":true} {"id":"2","username":"a","active":true}"#,
            &["users 1 and 2 both have the username a"],
        );
    }
}
