//! [`Places`]: the folders and files to watch, so that each change of what a path leads to sends an event.
//!
//! A path may lead through symbolic links, which are replaced in folders of their own: Kubernetes replaces `..data`, and certbot the
//! links in `live/`. A folder that was removed is waited for in the nearest folder above it that exists.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf, absolute};

/// The system follows no more links than this in one path.
const MAX_LINKS: usize = 40;

/// What to watch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Folders with a link or file on the way, by their real path.
    folders: BTreeSet<PathBuf>,
    /// The files. One that is mounted by itself sends no events to its folder.
    files: BTreeSet<PathBuf>,
    /// The names of links and files in `folders`. Events of other names do not matter.
    names: HashSet<OsString>,
}

impl Places {
    pub(super) fn of<'f>(files: impl IntoIterator<Item = &'f PathBuf>) -> Self {
        let mut places = Self::default();
        for file in files {
            places.add(file);
        }
        places
    }

    /// Folders first: a file is only watched in addition.
    pub(super) fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.folders.iter().chain(&self.files)
    }

    /// Whether an event of this path may change a file.
    pub(super) fn concern(&self, path: &Path) -> bool {
        // A folder that two paths lead to is reported by one of them, so only the name is compared.
        path.file_name().is_some_and(|name| self.names.contains(name)) || self.folders.contains(path)
    }

    fn add(&mut self, file: &Path) {
        let Ok(file) = absolute(file) else { return };
        // The part of the path that has been followed; it has no links.
        let mut at = PathBuf::from("/");
        let mut remaining = reversed(&file);
        let mut links = 0;
        while let Some(step) = remaining.pop() {
            let name = match step {
                Step::Root => {
                    at = PathBuf::from("/");
                    continue;
                }
                Step::Parent => {
                    at.pop();
                    continue;
                }
                Step::Name(name) => name,
            };
            let next = at.join(&name);
            let metadata = fs::symlink_metadata(&next);
            match metadata {
                Ok(metadata) if metadata.is_symlink() => {
                    self.watch(&at, &name);
                    links += 1;
                    match fs::read_link(&next) {
                        Ok(target) if links <= MAX_LINKS => remaining.extend(reversed(&target)),
                        Ok(_) | Err(_) => return,
                    }
                }
                Ok(metadata) if metadata.is_dir() && !remaining.is_empty() => at = next,
                Ok(_) => {
                    self.watch(&at, &name);
                    self.files.insert(next);
                    return;
                }
                Err(_) => {
                    self.watch(&at, &name);
                    return;
                }
            }
        }
    }

    fn watch(&mut self, folder: &Path, name: &OsStr) {
        if !self.folders.contains(folder) {
            self.folders.insert(folder.to_owned());
        }
        if !self.names.contains(name) {
            self.names.insert(name.to_owned());
        }
    }
}

/// One step of a path.
enum Step {
    Root,
    Parent,
    Name(OsString),
}

/// The steps of a path, the last one first.
fn reversed(path: &Path) -> Vec<Step> {
    let steps = path.components().rev().filter_map(|component| match component {
        Component::RootDir | Component::Prefix(_) => Some(Step::Root),
        Component::ParentDir => Some(Step::Parent),
        Component::CurDir => None,
        Component::Normal(name) => Some(Step::Name(name.to_owned())),
    });
    steps.collect()
}
