//! `authgate user put`: records from flags or from a file.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{Deserializer, Value};

use super::summary;
use crate::auth::record::UserRecord;
use crate::auth::store::admin::{Admin, Import, UserUpdate};
use crate::cli::stores::StoreName;
use crate::cli::{Failure, StoreContext, output, values};
use crate::identity::{Text, UserId};
use crate::printable::without_values;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The user's id: for Django, the primary key
    #[arg(long, value_parser = values::user_id, required_unless_present = "file")]
    id: Option<UserId>,
    /// The name to log in with
    #[arg(long, value_name = "NAME", value_parser = values::text)]
    username: Option<Text>,
    /// Mail address
    #[arg(long, value_name = "ADDRESS", value_parser = values::text)]
    email: Option<Text>,
    /// A group; may be given several times
    #[arg(long = "group", value_name = "NAME", value_parser = values::text)]
    groups: Vec<Text>,
    /// Keep the user out
    #[arg(long)]
    inactive: bool,
    /// Something else that upstreams may be told; a value that is JSON is taken as that, any other as text. May be given several times
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = values::attribute)]
    attributes: Vec<(String, Value)>,
    /// Read the records from a file, `-` for standard input: one JSON object, or several, one after the other
    #[arg(long, conflicts_with_all = ["id", "username", "email", "groups", "inactive", "attributes"])]
    file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreName,
    /// Print what is stored now as a JSON array
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
        (None, None) => return Err(Failure::Usage("--id or --file is needed".to_owned())),
    };
    if let Some(problem) = doubles(users.iter()).first() {
        return Err(Failure::Failed(format!("{problem}; nothing was written")));
    }
    let mut store = args.store.open_to_write(context)?;
    let let_in_again = compare(&users, &mut store)?;
    let mut import = store.import(values::now())?;
    let updates: Vec<UserUpdate> = users.iter().cloned().map(UserUpdate::from).collect();
    for batch in updates.chunks(Import::BATCH) {
        import.users(batch)?;
    }
    import.finish()?;
    for id in let_in_again {
        output::note(format_args!(
            "user {id} was not active and is so now; --inactive would have kept them out"
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

/// Reads JSON objects, one after the other.
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
        None if users.is_empty() => Err(failed("no records".to_owned())),
        None => Ok(users),
    }
}

/// Holds users against what is stored: nobody else may lose their name. Gives back who was not active and would be.
fn compare(users: &[UserRecord], store: &mut Admin) -> Result<Vec<String>, Failure> {
    let ids: HashSet<&UserId> = users.iter().map(|user| &user.id).collect();
    let mut let_in_again = Vec::new();
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
                "user {holder} is called {name} already; nothing was written"
            )));
        }
        if user.active && store.find_user(&user.id)?.is_some_and(|before| !before.active) {
            let_in_again.push(user.id.as_str().to_owned());
        }
    }
    Ok(let_in_again)
}

/// Users who are there twice, or share a username.
fn doubles<'u>(users: impl Iterator<Item = &'u UserRecord>) -> Vec<String> {
    let (mut ids, mut names, mut problems) = (HashSet::new(), HashMap::new(), Vec::new());
    for user in users {
        let id = user.id.as_str();
        if !ids.insert(id) {
            problems.push(format!("user {id} is there twice"));
        } else if let Some(name) = &user.username
            && let Some(other) = names.insert(name.as_str(), id)
        {
            problems.push(format!("users {other} and {id} are both called {name}"));
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
    fn records_come_one_after_the_other() {
        let two = users("{\"id\":\"1\",\n\"active\":true}\n{\"id\":\"2\",\"active\":false}\n").expect("two users");
        assert_eq!(two.iter().map(|user| user.active).collect::<Vec<_>>(), [true, false]);
        for bad in [
            "",
            "[]",
            "{\"id\":\"1\"}",
            "{\"id\":\"1\",\"active\":true",
            "{\"id\":\"1\",\"active\":true,\"password_md5\":\"abc\"}",
        ] {
            assert!(users(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_user_is_there_once_and_a_name_belongs_to_one() {
        let check =
            |text: &str, expected: &[&str]| assert_eq!(doubles(users(text).expect("users").iter()), expected, "{text}");
        check(
            r#"{"id":"1","username":"a","active":true} {"id":"2","username":"b","active":true} {"id":"3","active":true}"#,
            &[],
        );
        check(
            r#"{"id":"1","active":true} {"id":"1","active":true}"#,
            &["user 1 is there twice"],
        );
        check(
            r#"{"id":"1","username":"a","active":true} {"id":"2","username":"a","active":true}"#,
            &["users 1 and 2 are both called a"],
        );
    }
}
