use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use tempfile::TempDir;

use super::*;

/// How long an event may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A watch of one file, and its reports.
struct Watched {
    folder: TempDir,
    file: PathBuf,
    reports: Receiver<()>,
    _watch: FileWatch,
}

impl Watched {
    /// `prepare` makes the file in a folder, and returns its path. It holds `0`.
    fn new(still: Duration, check: Duration, prepare: impl FnOnce(&Path) -> PathBuf) -> Self {
        let folder = TempDir::new().expect("a folder");
        let file = prepare(folder.path());
        let (sender, reports) = channel();
        let intervals = Intervals { still, check };
        let watch = FileWatch::start(intervals, move || sender.send(()).expect("the test waits")).expect("a thread");
        // With another fingerprint the file is reported at once. Then it is watched.
        watch.follow(BTreeMap::from([(
            file.clone(),
            Some(Fingerprint::of_content(b"another")),
        )]));
        let watched = Self {
            folder,
            file,
            reports,
            _watch: watch,
        };
        watched.expect_report("the start");
        watched
    }

    /// Reports events only.
    fn by_events(prepare: impl FnOnce(&Path) -> PathBuf) -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(3600), prepare)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn expect_report(&self, after: &str) {
        assert!(self.reports.recv_timeout(TIMEOUT).is_ok(), "no report after {after}");
    }

    /// The last change is reported, and it was the only one since the previous report.
    fn expect_one_report(&self, after: &str) {
        self.expect_report(after);
        write(&self.file, "the end");
        self.expect_report("the end");
        assert!(self.reports.try_recv().is_err(), "two reports after {after}");
    }
}

fn write(file: &Path, content: &str) {
    fs::write(file, content).expect("writable");
}

fn plain(folder: &Path) -> PathBuf {
    let file = folder.join("tls.key");
    write(&file, "0");
    file
}

/// As a Kubernetes volume: `tls.key` leads to `..data/tls.key`, and `..data` to a folder.
fn kubernetes(folder: &Path) -> PathBuf {
    fs::create_dir(folder.join("..0")).expect("created");
    write(&folder.join("..0/tls.key"), "0");
    symlink("..0", folder.join("..data")).expect("created");
    symlink("..data/tls.key", folder.join("tls.key")).expect("created");
    folder.join("tls.key")
}

#[test]
fn a_file_that_is_written_in_place_is_reported() {
    let watched = Watched::by_events(plain);
    for content in ["1", "2", "", "3"] {
        write(&watched.file, content);
        watched.expect_report(content);
    }
}

#[test]
fn a_file_that_is_replaced_by_a_rename_is_reported() {
    let watched = Watched::by_events(plain);
    for content in ["1", "2"] {
        write(&watched.path("new"), content);
        fs::rename(watched.path("new"), &watched.file).expect("renamed");
        watched.expect_report(content);
    }
}

#[test]
fn a_file_that_is_removed_and_created_again_is_reported() {
    let watched = Watched::by_events(plain);
    for content in ["1", "2"] {
        fs::remove_file(&watched.file).expect("removed");
        watched.expect_report("its removal");
        write(&watched.file, content);
        watched.expect_report(content);
    }
}

#[test]
fn a_link_of_a_kubernetes_volume_that_is_replaced_is_reported() {
    let watched = Watched::by_events(kubernetes);
    for at in 1..4 {
        let (folder, previous) = (format!("..{at}"), format!("..{}", at - 1));
        fs::create_dir(watched.path(&folder)).expect("created");
        write(&watched.path(&folder).join("tls.key"), &folder);
        symlink(&folder, watched.path("..new")).expect("created");
        fs::rename(watched.path("..new"), watched.path("..data")).expect("renamed");
        watched.expect_report(&folder);
        fs::remove_dir_all(watched.path(&previous)).expect("removed");
    }
}

#[test]
fn a_link_into_another_folder_that_is_replaced_is_reported() {
    let watched = Watched::by_events(|folder| {
        for name in ["live", "archive"] {
            fs::create_dir(folder.join(name)).expect("created");
        }
        write(&folder.join("archive/key0.pem"), "0");
        symlink("../archive/key0.pem", folder.join("live/key.pem")).expect("created");
        folder.join("live/key.pem")
    });
    for at in 1..4 {
        write(&watched.path(&format!("archive/key{at}.pem")), &at.to_string());
        fs::remove_file(&watched.file).expect("removed");
        symlink(format!("../archive/key{at}.pem"), &watched.file).expect("created");
        watched.expect_report("a renewal");
    }
    write(&watched.path("archive/key3.pem"), "in place");
    watched.expect_report("a change of the file that the link leads to");
}

#[test]
fn a_folder_that_is_removed_and_made_again_is_reported() {
    let watched = Watched::by_events(|folder| {
        fs::create_dir_all(folder.join("a/b")).expect("created");
        plain(&folder.join("a/b"))
    });
    for content in ["1", "2"] {
        fs::remove_dir_all(watched.path("a")).expect("removed");
        watched.expect_report("the removal");
        fs::create_dir_all(watched.path("a/b")).expect("created");
        write(&watched.file, content);
        watched.expect_report(content);
    }
    // Another folder takes its place.
    fs::create_dir(watched.path("a/new")).expect("created");
    write(&watched.path("a/new/tls.key"), "3");
    fs::rename(watched.path("a/b"), watched.path("a/old")).expect("renamed");
    fs::rename(watched.path("a/new"), watched.path("a/b")).expect("renamed");
    watched.expect_report("another folder");
    write(&watched.file, "4");
    watched.expect_report("a change in it");
}

#[test]
fn a_burst_is_one_report() {
    let watched = Watched::new(Duration::from_secs(1), Duration::from_secs(3600), plain);
    for at in 0..10 {
        write(&watched.file, &at.to_string());
    }
    watched.expect_one_report("a burst");
}

#[test]
fn a_change_between_the_reading_and_the_watch_is_reported() {
    let folder = TempDir::new().expect("a folder");
    let file = plain(folder.path());
    for (was, is_reported) in [
        (Fingerprint::Unreadable(std::io::ErrorKind::NotFound), true),
        (Fingerprint::of_content(b"another"), true),
        (Fingerprint::of(&file), false),
    ] {
        let (sender, reports) = channel();
        let intervals = Intervals {
            still: Duration::from_millis(1),
            check: Duration::from_secs(3600),
        };
        let watch = FileWatch::start(intervals, move || sender.send(()).expect("the test waits")).expect("a thread");
        watch.follow(BTreeMap::from([(file.clone(), Some(was))]));
        if !is_reported {
            // The first report is that of this change.
            write(&file, "1");
        }
        assert!(reports.recv_timeout(TIMEOUT).is_ok(), "{was:?}");
        drop(watch);
        assert!(reports.recv().is_err(), "two reports: {was:?}");
    }
}

#[test]
fn other_files_and_equal_contents_are_not_reported() {
    let watched = Watched::by_events(plain);
    write(&watched.path("other"), "1");
    write(&watched.file, "0");
    fs::read(&watched.file).expect("readable");
    write(&watched.file, "1");
    watched.expect_one_report("three writes without a change, and one with a change");
}

#[test]
fn a_change_without_an_event_is_found_by_the_next_check() {
    // A change of a folder above the watched ones sends no event.
    let watched = Watched::new(Duration::from_millis(100), Duration::from_millis(300), |folder| {
        fs::create_dir_all(folder.join("a/b")).expect("created");
        fs::create_dir_all(folder.join("new/b")).expect("created");
        plain(&folder.join("new/b"));
        write(&folder.join("new/b/tls.key"), "1");
        plain(&folder.join("a/b"))
    });
    fs::rename(watched.path("a"), watched.path("old")).expect("renamed");
    fs::rename(watched.path("new"), watched.path("a")).expect("renamed");
    watched.expect_report("another folder above");
    write(&watched.file, "2");
    watched.expect_report("a change in it");
}
