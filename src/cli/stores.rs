//! Which store a command means, and opening it.

use crate::auth::store::admin::{Admin, AdminError, Begin, Begun, StoreState};
use crate::auth::store::{Digests, Settings};
use crate::cli::{Failure, StoreContext, output};

/// `--store`, for every command that has to do with one.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct StoreName {
    /// Which store of the configuration; may be left out where there is only one.
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
}

impl StoreName {
    /// Opens a store that has records already.
    ///
    /// # Errors
    /// There is no such store, it is empty, or it cannot be reached.
    pub(super) fn open(&self, context: &StoreContext<'_>) -> Result<Admin, Failure> {
        let mut store = Admin::open(self.choose(context)?)?;
        store.require_layout()?;
        Ok(store)
    }

    /// What the store's tokens are named by.
    ///
    /// # Errors
    /// There is no such store.
    pub(super) fn digests(&self, context: &StoreContext<'_>) -> Result<Digests, Failure> {
        Ok(self.choose(context)?.digests())
    }

    /// Opens a store whatever it holds.
    ///
    /// # Errors
    /// There is no such store, or it cannot be reached.
    pub(super) fn reach(&self, context: &StoreContext<'_>) -> Result<Admin, Failure> {
        Ok(Admin::open(self.choose(context)?)?)
    }

    /// Opens a store to write to it; an empty one is begun, and gateways may use it at once.
    ///
    /// # Errors
    /// There is no such store, or it cannot be reached.
    pub(super) fn open_to_write(&self, context: &StoreContext<'_>) -> Result<Admin, Failure> {
        let settings = self.choose(context)?;
        let mut store = Admin::open(settings)?;
        match store.begin(Begin::ToUse)?.state {
            StoreState::Complete => {}
            StoreState::WasEmpty => note_empty(settings),
            StoreState::Filling => output::note(format_args!(
                "store {} is being filled; gateways answer 503 until `authgate token import` has completed it",
                settings.name
            )),
        }
        Ok(store)
    }

    /// Opens a store to import into it; gateways use an empty one after [`Admin::complete`].
    ///
    /// # Errors
    /// There is no such store, or it cannot be reached.
    pub(super) fn open_to_fill(&self, context: &StoreContext<'_>) -> Result<(Admin, Begun), Failure> {
        let settings = self.choose(context)?;
        let mut store = Admin::open(settings)?;
        let begun = store.begin(Begin::ToFill)?;
        match begun.state {
            StoreState::Complete => {}
            StoreState::WasEmpty => note_empty(settings),
            StoreState::Filling => output::note(format_args!(
                "an import into store {} was cut off or is under way; this one completes it",
                settings.name
            )),
        }
        Ok((store, begun))
    }

    fn choose<'c>(&self, context: &StoreContext<'c>) -> Result<&'c Settings, Failure> {
        let names = || {
            context
                .stores
                .iter()
                .map(|store| &*store.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        match (&self.store, context.stores) {
            (_, []) => Err(Failure::Usage(
                "the configuration has no [stores.NAME] table".to_owned(),
            )),
            (None, [only]) => Ok(only),
            (None, _) => Err(Failure::Usage(format!("which store? --store is one of: {}", names()))),
            (Some(name), stores) => stores
                .iter()
                .find(|store| *store.name == **name)
                .ok_or_else(|| Failure::Usage(format!("there is no store {name}; --store is one of: {}", names()))),
        }
    }
}

fn note_empty(settings: &Settings) {
    output::note(format_args!(
        "store {} was empty and has been begun: its layout record was made. If it held records before, its revocations and revoked \
         tokens are lost: import the last `authgate token export` of it",
        settings.name
    ));
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        Self::Failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::store::{Kind, embedded};

    fn settings(name: &str) -> Settings {
        let file = "/nonexistent/tokens.toml".into();
        Settings {
            name: name.into(),
            kind: Kind::Embedded(embedded::Settings {
                file,
                digests: Digests::default(),
            }),
        }
    }

    #[test]
    fn one_store_is_implied_and_several_are_named() {
        let (none, one, two) = ([], [settings("a")], [settings("a"), settings("b")]);
        let check = |stores: &[Settings], name: Option<&str>, expected: Result<&str, &str>| {
            let context = StoreContext {
                stores,
                largest_leeway: Duration::ZERO,
            };
            let chosen = StoreName {
                store: name.map(str::to_owned),
            };
            match (chosen.choose(&context), expected) {
                (Ok(store), Ok(expected)) => assert_eq!(&*store.name, expected),
                (Err(Failure::Usage(problem)), Err(part)) => assert!(problem.contains(part), "{problem}"),
                (other, expected) => panic!("{other:?}, expected {expected:?}"),
            }
        };
        check(&none, None, Err("no [stores"));
        check(&one, None, Ok("a"));
        check(&two, None, Err("a, b"));
        check(&two, Some("b"), Ok("b"));
        check(&two, Some("c"), Err("a, b"));
    }
}
