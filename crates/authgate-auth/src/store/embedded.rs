//! The embedded store: one TOML file, kept in memory and read again when it changes. It needs no server.
//!
//! Gateways only read the file. `authgate token`, `user` and `revoke` replace it as a whole, under a lock, so a reader sees either the old
//! file or the new one.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use authgate_core::identity::UserId;
use authgate_core::printable::without_values;
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use super::{
    Digests, JwtFacts, JwtQuery, LOCAL_TIME_LIMIT, LayoutProblem, Lookup, StoreError, TokenDigest, TokenFacts, UserKey,
    effective_record,
};
use crate::dependencies::StoreItem;
use crate::metrics::StoreMetrics;
use crate::now::Now;
use crate::record::{BadRecord, Layout, TokenRecord, UserRecord};
use crate::store_changes::StoreChanges;

/// How often the file is checked for changes, so that a revocation takes effect well within a second.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Above this number of tokens and users, a warning recommends Redis. Each change writes and reads the whole file. At this number, a reader
/// needs 0.1 s and 120 MB for it; at ten times this number, a revocation is no longer in force within a second.
pub const LARGE: usize = 20_000;

/// The configuration of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedSettings {
    /// Its path.
    pub file: PathBuf,
    /// The kinds of digests that tokens are stored under.
    pub digests: Digests,
}

impl EmbeddedSettings {
    pub(super) fn has_records_of(&self, previous: &Self) -> bool {
        self.file == previous.file
    }
}

/// The records of a file; the same as in Redis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    /// The layout record.
    pub layout: Layout,
    /// Opaque tokens by digest.
    #[serde(default)]
    pub tokens: BTreeMap<String, TokenRecord>,
    /// Users by id.
    #[serde(default)]
    pub users: BTreeMap<String, UserRecord>,
    /// What was revoked.
    #[serde(default)]
    pub revoked: Revoked,
}

/// What was revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// JWT ids, each with the Unix second after which the entry may be removed; 0: never.
    #[serde(default)]
    pub jti: BTreeMap<String, i64>,
    /// User ids: credentials issued up to this Unix second are revoked.
    #[serde(default)]
    pub user: BTreeMap<String, i64>,
    /// Key ids.
    #[serde(default)]
    pub kid: BTreeMap<String, i64>,
}

impl Records {
    /// No records, with a new layout record.
    pub fn empty(layout: Layout) -> Self {
        Self {
            layout,
            tokens: BTreeMap::new(),
            users: BTreeMap::new(),
            revoked: Revoked::default(),
        }
    }

    /// The number of tokens and users.
    pub fn size(&self) -> usize {
        self.tokens.len() + self.users.len()
    }

    /// Parses the text of a file, and checks it against the layout.
    ///
    /// # Errors
    /// What is wrong, with the position in the file if the TOML parser reports one.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Position and reason, but not the line itself: it may hold the digest of a password, or a key.
        let records: Self = toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            format!(
                "line {}: {}",
                before.matches('\n').count() + 1,
                without_values(error.message())
            )
        })?;
        if records.layout.version != Layout::VERSION {
            return Err(format!(
                "layout.version is {}, this program needs {}",
                records.layout.version,
                Layout::VERSION
            ));
        }
        if let Some(name) = records.tokens.keys().find(|name| TokenDigest::from_hex(name).is_none()) {
            // Without the name itself: it may be a key, written where its digest belongs.
            return Err(format!(
                "a table of `tokens` has a name of {} bytes; write a digest of 64 or 128 lower-case hexadecimal digits",
                name.len()
            ));
        }
        match records.users.iter().find(|(id, user)| *id != user.id.as_str()) {
            Some((id, user)) => Err(format!("users.{id}: the record holds the id {:?}", user.id.as_str())),
            None => Ok(records),
        }
    }

    /// Reads a file; `None`: it does not exist.
    ///
    /// # Errors
    /// The file cannot be read, or does not match the layout.
    pub fn load(file: &Path) -> Result<Option<Self>, String> {
        let named = |problem: String| format!("{}: {problem}", file.display());
        // Reading a pipe would wait for its writer.
        let read = fs::metadata(file).and_then(|metadata| match metadata.is_file() {
            true => fs::read_to_string(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
        });
        match read {
            Ok(text) => Self::parse(&text).map(Some).map_err(named),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(error.to_string())),
        }
    }

    /// Replaces the file by these records, atomically. The caller must hold the lock of the file.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let (folder, prefix) = (folder(file), temporary_prefix(file));
        tidy(folder, &prefix);
        let mut fresh = tempfile::Builder::new().prefix(&prefix).tempfile_in(folder)?;
        fresh.write_all(
            b"# Kept by `authgate token`, `authgate user` and `authgate revoke`: digests and users, no keys.\n",
        )?;
        fresh.write_all(text.as_bytes())?;
        if let Ok(old) = fs::metadata(file) {
            keep_owner(fresh.as_file(), &old)?;
            fresh.as_file().set_permissions(old.permissions())?;
        } else if fresh.as_file().metadata()?.uid() == ROOT {
            // A gateway that runs as the owner of the folder can read the file then.
            keep_owner(fresh.as_file(), &fs::metadata(folder)?)?;
        }
        fresh.as_file().sync_all()?;
        fresh.persist(file)?;
        // Sync the folder too, so that the new name survives a power failure.
        fs::File::open(folder)?.sync_all()
    }
}

/// The folder that a file is in.
pub fn folder(file: &Path) -> &Path {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// The prefix of temporary files that replace this file.
fn temporary_prefix(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    format!(".authgate-{name}-")
}

/// Removes temporary files of commands that were killed. The caller holds the lock, so no other program is writing one.
fn tidy(folder: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && entry.file_name().to_string_lossy().starts_with(prefix) {
            // A file that cannot be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The user root.
const ROOT: u32 = 0;

/// Keeps the owner of the file when root rewrites it, so that a gateway that runs as that owner can still read it.
fn keep_owner(fresh: &fs::File, old: &fs::Metadata) -> io::Result<()> {
    let own = fresh.metadata()?;
    let (uid, gid) = (old.uid(), old.gid());
    if (own.uid(), own.gid()) == (uid, gid) {
        return Ok(());
    }
    fchown(fresh, Some(uid), Some(gid)).map_err(|error| {
        let who =
            format!("the file belongs to user {uid} and group {gid} and would not any more: run this as that user");
        io::Error::new(error.kind(), format!("{who} ({error})"))
    })
}

/// The file as the gateway reads it.
#[derive(Debug)]
pub(crate) struct EmbeddedFile {
    name: Arc<str>,
    file: PathBuf,
    digests: Digests,
    contents: ArcSwapOption<Contents>,
    reached: AtomicBool,
    changes: Arc<StoreChanges>,
}

/// The records of a file, and an index of usernames.
#[derive(Debug)]
struct Contents {
    records: Records,
    names: HashMap<Box<str>, Holder>,
}

/// Finds the user with a username.
#[derive(Debug)]
enum Holder {
    One(UserId),
    Several,
}

impl Contents {
    fn new(records: Records) -> Self {
        let mut names = HashMap::with_capacity(records.users.len());
        for user in records.users.values() {
            if let Some(name) = &user.username {
                names
                    .entry(name.as_str().into())
                    .and_modify(|holder| *holder = Holder::Several)
                    .or_insert_with(|| Holder::One(user.id.clone()));
            }
        }
        Self { records, names }
    }

    fn user_by_name(&self, name: &str) -> Result<Option<&UserRecord>, BadRecord> {
        match self.names.get(name) {
            None => Ok(None),
            Some(Holder::One(id)) => Ok(self.records.users.get(id.as_str())),
            Some(Holder::Several) => Err(BadRecord::SharedName { name: name.to_owned() }),
        }
    }
}

/// What identifies one version of the file.
type Stamp = (SystemTime, u64, u64);

impl EmbeddedFile {
    /// Reads the file. If it cannot be read, this store is unavailable, but the gateway runs.
    pub(super) fn new(name: Arc<str>, settings: EmbeddedSettings, changes: Arc<StoreChanges>, _: StoreMetrics) -> Self {
        let file = Self {
            name,
            file: settings.file,
            digests: settings.digests,
            contents: ArcSwapOption::empty(),
            reached: AtomicBool::new(false),
            changes,
        };
        file.read();
        file
    }

    pub(super) fn was_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    pub(super) fn is_usable(&self) -> bool {
        self.contents.load().is_some()
    }

    /// A file that cannot be used is no outage: it may have revoked anything.
    #[expect(clippy::unused_self, reason = "other kinds can be in one")]
    pub(super) fn is_in_outage(&self) -> bool {
        false
    }

    /// Drops all records if the file is invalid or missing: they may have been revoked in the meantime.
    pub(super) fn read(&self) {
        let named = |problem: &dyn std::fmt::Display| format!("{}: {problem}", self.file.display());
        let loaded = match Records::load(&self.file) {
            Ok(Some(records)) if records.layout.filling => Err(named(&LayoutProblem::Filling)),
            Ok(Some(records)) => Ok(records),
            Ok(None) => Err(named(&"the file does not exist")),
            Err(problem) => Err(problem),
        };
        match loaded {
            Ok(records) => {
                let (tokens, users) = (records.tokens.len(), records.users.len());
                if records.size() > LARGE {
                    warn!(
                        store = %self.name, tokens, users, limit = LARGE,
                        "the store's file is large: each change writes and reads all of it. Move it to Redis: `authgate token export`, \
                         `authgate token import`"
                    );
                }
                self.contents.store(Some(Arc::new(Contents::new(records))));
                self.reached.store(true, Ordering::Relaxed);
            }
            Err(problem) => {
                self.contents.store(None);
                error!(
                    store = %self.name, reason = problem,
                    "the store's file cannot be used; routes that need it answer 503 until it is corrected"
                );
            }
        }
        // Increment after the records are replaced: a decision that was made from the old records has the old counter.
        self.changes.changed(StoreItem::Store);
    }

    fn stamp(&self) -> Option<Stamp> {
        let metadata = fs::metadata(&self.file).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    }

    pub(super) async fn watch(&self) {
        let mut seen = None;
        let mut ticks = tokio::time::interval(CHECK_INTERVAL);
        self.changes.subscribed();
        loop {
            let (now, stamp) = (Now::read(), self.stamp());
            if stamp != seen {
                // Reading a large file takes time, and the same runtime answers probes.
                tokio::task::block_in_place(|| self.read());
                // The runtime may have begun to shut down meanwhile, and then has no timers. A task that yields is not polled again.
                tokio::task::yield_now().await;
                if seen.is_some() && self.is_usable() {
                    info!(store = %self.name, "the store's file changed and was read again");
                }
                seen = stamp;
            }
            self.changes.confirmed(now);
            ticks.tick().await;
        }
    }

    fn contents(&self) -> Result<Arc<Contents>, StoreError> {
        self.contents
            .load_full()
            .ok_or_else(|| StoreError::Unreadable(Arc::clone(&self.name)))
    }

    fn token(&self, key: &[u8], lookup: &mut Lookup) -> Result<Option<TokenFacts>, StoreError> {
        self.changes.mark(&mut lookup.dependencies, StoreItem::Store);
        let contents = self.contents()?;
        let Records {
            tokens, users, revoked, ..
        } = &contents.records;
        let digests = self.digests.of(key);
        let found = digests
            .iter()
            .flatten()
            .filter_map(|digest| tokens.get(&digest.to_hex()).cloned());
        let Some(token) = effective_record(found) else {
            return Ok(None);
        };
        let user = users.get(token.user.as_str()).cloned();
        let user_revoked = revoked.user.get(token.user.as_str()).copied();
        Ok(Some(TokenFacts {
            token,
            user,
            user_revoked,
            digest: None,
        }))
    }

    fn jwt(&self, query: JwtQuery<'_>, lookup: &mut Lookup) -> Result<JwtFacts, StoreError> {
        self.changes.mark(&mut lookup.dependencies, StoreItem::Store);
        let contents = self.contents()?;
        let Records { users, revoked, .. } = &contents.records;
        let user = match query.user {
            None => None,
            Some(UserKey::Id(id)) => users.get(id.as_str()),
            Some(UserKey::Name(name)) => contents
                .user_by_name(name)
                .map_err(|problem| StoreError::Record(Arc::clone(&self.name), problem))?,
        };
        let revoked_user = query.revoked_user.or(user.map(|user| &user.id));
        Ok(JwtFacts {
            jti_revoked: query.jti.is_some_and(|jti| revoked.jti.contains_key(jti)),
            kid_revoked: query.kid.is_some_and(|kid| revoked.kid.contains_key(kid)),
            user_revoked: revoked_user.and_then(|id| revoked.user.get(id.as_str()).copied()),
            user: user.cloned(),
        })
    }
}

/// A worker's handle.
#[derive(Debug)]
pub(super) struct EmbeddedStore(Arc<EmbeddedFile>);

impl EmbeddedStore {
    pub(super) fn new(file: Arc<EmbeddedFile>) -> Self {
        Self(file)
    }

    pub(super) fn time_limit(&self) -> Duration {
        LOCAL_TIME_LIMIT
    }

    pub(super) fn is_down(&self) -> bool {
        self.0.is_in_outage()
    }

    #[expect(clippy::unused_async, reason = "other kinds wait here")]
    pub(super) async fn token(&self, key: &[u8], lookup: &mut Lookup) -> Result<Option<TokenFacts>, StoreError> {
        self.0.token(key, lookup)
    }

    #[expect(clippy::unused_async, reason = "other kinds wait here")]
    pub(super) async fn jwt(&self, query: JwtQuery<'_>, lookup: &mut Lookup) -> Result<JwtFacts, StoreError> {
        self.0.jwt(query, lookup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        layout = { version = 1, epoch = "e" }
        [tokens.2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881]
        user = "1"
        [users.1]
        id = "1"
        username = "ada"
        active = true
        [revoked.user]
        1 = 1700000000
    "#;

    fn lookup() -> Lookup {
        Lookup::until(tokio::time::Instant::now())
    }

    #[test]
    fn a_saved_file_is_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens.toml");
        let records = Records::parse(FILE).expect("a good file");
        records.save(&file).expect("writable");
        assert_eq!(Records::load(&file), Ok(Some(records)));
    }

    #[test]
    fn a_rewritten_file_keeps_its_mode_and_owner() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens.toml");
        fs::write(&file, FILE).expect("writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("ours");
        for left in [".authgate-tokens.toml-killed", ".authgate-other.toml-busy"] {
            fs::write(folder.path().join(left), "half").expect("writable");
        }
        // Only root can change the owner of a file.
        let given = std::os::unix::fs::chown(&file, Some(65534), Some(65534)).is_ok();
        Records::parse(FILE)
            .expect("a good file")
            .save(&file)
            .expect("writable");
        let metadata = fs::metadata(&file).expect("there");
        let names = fs::read_dir(folder.path()).expect("a folder");
        assert_eq!(names.count(), 2, "the file and another store's");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
        assert!(!given || (metadata.uid(), metadata.gid()) == (65534, 65534));
    }

    #[test]
    fn a_new_file_of_root_belongs_to_the_owner_of_its_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        // Only root can change the owner of a folder.
        let given = std::os::unix::fs::chown(folder.path(), Some(65534), Some(65534)).is_ok();
        let file = folder.path().join("tokens.toml");
        Records::parse(FILE)
            .expect("a good file")
            .save(&file)
            .expect("writable");
        let metadata = fs::metadata(&file).expect("there");
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert!(!given || (metadata.uid(), metadata.gid()) == (65534, 65534));
    }

    #[test]
    fn lookups_join_records() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens.toml");
        fs::write(&file, FILE).expect("writable");
        let store = EmbeddedFile::new(
            "file".into(),
            EmbeddedSettings {
                file,
                digests: Digests::SHA256,
            },
            StoreChanges::new(&"file".into(), &Arc::default()),
            StoreMetrics::new("embedded"),
        );
        let facts = store.token(b"x", &mut lookup()).expect("usable").expect("there");
        assert_eq!(
            (facts.user.map(|user| user.active), facts.user_revoked),
            (Some(true), Some(1_700_000_000))
        );
        assert!(store.token(b"y", &mut lookup()).expect("usable").is_none());
        let query = JwtQuery {
            user: Some(UserKey::Name("ada")),
            ..JwtQuery::default()
        };
        let facts = store.jwt(query, &mut lookup()).expect("usable");
        assert_eq!((facts.user.is_some(), facts.user_revoked), (true, Some(1_700_000_000)));
        let twice = FILE.to_owned() + "\n[users.2]\nid = \"2\"\nusername = \"ada\"\nactive = true\n";
        fs::write(&store.file, twice.replace("[revoked.user]\n        1 = 1700000000", "")).expect("writable");
        store.read();
        assert!(matches!(
            store.jwt(query, &mut lookup()),
            Err(StoreError::Record(_, BadRecord::SharedName { .. }))
        ));
    }

    #[test]
    fn an_invalid_file_is_an_outage() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens.toml");
        let store = EmbeddedFile::new(
            "file".into(),
            EmbeddedSettings {
                file: file.clone(),
                digests: Digests::SHA256,
            },
            StoreChanges::new(&"file".into(), &Arc::default()),
            StoreMetrics::new("embedded"),
        );
        assert!(matches!(
            store.token(b"x", &mut lookup()),
            Err(StoreError::Unreadable(_))
        ));
        fs::write(&file, FILE).expect("writable");
        store.read();
        assert!(store.was_reached() && store.is_usable());
        for broken in [
            "layout = 1",
            "",
            &FILE.replace("version = 1", "version = 2"),
            &FILE.replace("2d71", "ZZ71"),
        ] {
            fs::write(&file, broken).expect("writable");
            store.read();
            assert!(!store.is_usable(), "{broken}");
        }
    }
}
