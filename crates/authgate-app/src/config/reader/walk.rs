//! Walks all tables, with the paths at which they are.

use super::Table;

/// A table at a place of the file.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its key path, such as `server.limits`, `stores.NAME` or `routes[]`; empty: the whole file.
    pub(crate) path: String,
    /// The table.
    pub(crate) table: &'static Table,
}

impl Place {
    /// The path of one of its keys.
    pub(crate) fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }
}

/// Calls `visit` with each table of a file at each of its places, in the order of the manual. `root`: the whole file.
pub(crate) fn tables(root: &'static Table, visit: &mut impl FnMut(&Place)) {
    table(String::new(), root, visit);
}

/// The tables of a file that have a key of this name, as key paths.
pub(super) fn tables_with(root: &'static Table, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    tables(root, &mut |place| {
        let path = place.path.clone();
        if !path.is_empty() && place.table.find(name).is_some() && !found.contains(&path) {
            found.push(path);
        }
    });
    found
}

fn table(path: String, table: &'static Table, visit: &mut impl FnMut(&Place)) {
    let place = Place { path, table };
    visit(&place);
    for key in table.keys {
        let path = place.path_of(key.name());
        for (below, inner) in key.shape().tables() {
            self::table(format!("{path}{below}"), inner, visit);
        }
    }
}
