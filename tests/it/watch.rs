//! `server.watch`: files are read again when they have changed, however they are replaced, and half a change is never in force.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use authgate_auth::jwt::keys::Algorithm;

use crate::harness::client::Conn;
use crate::harness::mint::Signer;
use crate::harness::pki::Pki;
use crate::harness::{Config, Gate, RecordingUpstream, config, get, wait_until};

/// How long a reload may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

fn applied(gate: &Gate) -> f64 {
    gate.metric("authgate_reloads_total{outcome=\"applied\"}")
}

fn refused(gate: &Gate) -> f64 {
    gate.metric("authgate_reloads_total{outcome=\"refused\"}")
}

/// A route for JWTs that this file's secret has signed.
fn with_secret(upstream: &RecordingUpstream, file: &str) -> Config {
    let keys = format!("keys = [{{ algorithm = \"HS256\", secret = {{ file = \"{file}\" }} }}]");
    config()
        .app(upstream)
        .jwt("users = \"none\"")
        .jwt(&keys)
        .route("/x", "authenticate = [\"jwt\"]")
}

/// Tokens of the new secret are accepted, and those of the old one refused.
fn expect_secret(conn: &mut Conn, old: &Signer, new: &Signer, way: &str) {
    wait_until(&format!("the secret is in force: {way}"), TIMEOUT, || {
        conn.call(&get("/x").bearer(&new.access())).status == 200
    });
    assert_eq!(conn.call(&get("/x").bearer(&old.access())).status, 401, "{way}");
}

/// A gateway whose folder `prepare` has made, with a secret in it.
fn start_in(config: &Config, prepare: impl FnOnce(&Path)) -> Gate {
    let folder = tempfile::TempDir::new().expect("a folder");
    prepare(folder.path());
    config.write(folder.path());
    let mut command = crate::harness::program::program();
    command
        .arg("run")
        .arg("--config")
        .arg(folder.path().join("gateway.toml"));
    let gate = Gate::of(command, folder, None);
    wait_until("the gateway is ready", TIMEOUT, || gate.probe("/readyz").status == 200);
    gate
}

#[test]
fn a_secret_is_in_force_however_its_file_is_replaced() {
    let upstream = RecordingUpstream::start();
    let mut old = Signer::new(Algorithm::HS256);
    let gate = start_in(&with_secret(&upstream, "keys/jwt.secret"), |folder| {
        fs::create_dir(folder.join("keys")).unwrap();
        fs::write(folder.join("keys/jwt.secret"), old.file()).unwrap();
    });
    let (folder, file) = (
        gate.folder.path().join("keys"),
        gate.folder.path().join("keys/jwt.secret"),
    );
    let mut conn = gate.connect();
    assert_eq!(conn.call(&get("/x").bearer(&old.access())).status, 200);
    type Way<'w> = (&'w str, Box<dyn Fn(&[u8]) + 'w>);
    let ways: Vec<Way<'_>> = vec![
        ("in place", Box::new(|secret| fs::write(&file, secret).unwrap())),
        (
            "by a rename",
            Box::new(|secret| {
                fs::write(folder.join(".new"), secret).unwrap();
                fs::rename(folder.join(".new"), &file).unwrap();
            }),
        ),
        (
            "by an editor that renames the old file",
            Box::new(|secret| {
                fs::rename(&file, folder.join("jwt.secret~")).unwrap();
                fs::write(&file, secret).unwrap();
            }),
        ),
        (
            "in a folder that is removed and made again",
            Box::new(|secret| {
                fs::remove_dir_all(&folder).unwrap();
                fs::create_dir(&folder).unwrap();
                fs::write(&file, secret).unwrap();
            }),
        ),
        (
            "by a link to another folder, as certbot does",
            Box::new(|secret| {
                let archive = gate.folder.path().join("archive");
                fs::create_dir(&archive).unwrap();
                fs::write(archive.join("secret2"), secret).unwrap();
                fs::remove_file(&file).unwrap();
                symlink("../archive/secret2", &file).unwrap();
            }),
        ),
        (
            "where the link leads to",
            Box::new(|secret| fs::write(gate.folder.path().join("archive/secret2"), secret).unwrap()),
        ),
    ];
    for (way, replace) in ways {
        let new = Signer::new(Algorithm::HS256);
        replace(&new.file());
        expect_secret(&mut conn, &old, &new, way);
        old = new;
    }
    gate.logged(&["the configuration was read again and is in force", "file_change"]);
}

#[test]
fn a_kubernetes_volume_is_followed() {
    let upstream = RecordingUpstream::start();
    let mut old = Signer::new(Algorithm::HS256);
    let gate = start_in(&with_secret(&upstream, "volume/jwt.secret"), |folder| {
        fs::create_dir_all(folder.join("volume/..0")).unwrap();
        fs::write(folder.join("volume/..0/jwt.secret"), old.file()).unwrap();
        symlink("..0", folder.join("volume/..data")).unwrap();
        symlink("..data/jwt.secret", folder.join("volume/jwt.secret")).unwrap();
    });
    let volume = gate.folder.path().join("volume");
    let mut conn = gate.connect();
    for at in 1..4 {
        let (new, name) = (Signer::new(Algorithm::HS256), format!("..{at}"));
        fs::create_dir(volume.join(&name)).unwrap();
        fs::write(volume.join(&name).join("jwt.secret"), new.file()).unwrap();
        symlink(&name, volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        fs::remove_dir_all(volume.join(format!("..{}", at - 1))).unwrap();
        expect_secret(&mut conn, &old, &new, &name);
        old = new;
    }
    assert_eq!(refused(&gate), 0.0);
}

#[test]
fn a_private_key_is_only_used_with_the_chain_that_fits_it() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(&config().app(&upstream).public("/x").tls(&pki, &[&["localhost"]]));
    let client = || pki.client(&["http/1.1"], rustls::ALL_VERSIONS);
    let serves =
        |name: &str| Conn::tls(gate.address, name, client()).is_ok_and(|mut conn| conn.call(&get("/x")).status == 200);
    let (chain, key) = pki.leaf(&["localhost", "new.example"]);
    let write = |name: &str, text: &str| fs::write(gate.folder.path().join(name), text).unwrap();

    write("0.pem", &chain);
    wait_until("the chain alone is refused", TIMEOUT, || refused(&gate) > 0.0);
    gate.logged(&["an error in the configuration", "0.key"]);
    assert!(serves("localhost") && !serves("new.example"), "the old pair serves");

    write("0.key", &key);
    wait_until("the pair is in force", TIMEOUT, || serves("new.example"));
    // A reload is counted after it is in force.
    wait_until("the reload is counted", TIMEOUT, || applied(&gate) > 0.0);
    assert_eq!((applied(&gate), refused(&gate)), (1.0, 1.0));
}

#[test]
fn a_burst_of_changes_is_one_reload() {
    let upstream = RecordingUpstream::start();
    let mut old = Signer::new(Algorithm::HS256);
    let config = with_secret(&upstream, "jwt.secret").file("jwt.secret", old.file());
    let gate = Gate::start(&config);
    let mut conn = gate.connect();
    // On a busy machine, two changes may be so far apart that they are two bursts. Then there is another one.
    for _ in 0..20 {
        let (before, mut longest) = (applied(&gate), Duration::ZERO);
        let mut new = Signer::new(Algorithm::HS256);
        for _ in 0..10 {
            new = Signer::new(Algorithm::HS256);
            let began = Instant::now();
            fs::write(gate.folder.path().join("jwt.secret"), new.file()).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            longest = longest.max(began.elapsed());
        }
        expect_secret(&mut conn, &old, &new, "a burst");
        wait_until("the reload is counted", TIMEOUT, || applied(&gate) > before);
        old = new;
        if longest < Duration::from_millis(100) {
            assert_eq!(applied(&gate) - before, 1.0);
            return;
        }
    }
    panic!("the machine is too busy for a burst");
}

#[test]
fn all_watches_the_configuration_too() {
    let upstream = RecordingUpstream::start();
    let first = config().server("watch = \"all\"").app(&upstream).public("/x");
    let gate = Gate::start(&first);
    let file = gate.folder.path().join("gateway.toml");
    assert_eq!(gate.get("/new").status, 404);

    // Half of the file is refused, and the whole one is in force.
    let second = first.clone().public("/new");
    let text = second.text();
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    wait_until("half of the file is refused", TIMEOUT, || refused(&gate) > 0.0);
    assert_eq!(gate.get("/x").status, 200);
    fs::write(&file, &text).unwrap();
    wait_until("the new route is in force", TIMEOUT, || gate.get("/new").status == 200);

    // It names a file that is not there yet.
    let signer = Signer::new(Algorithm::HS256);
    let third = with_secret(&upstream, "later/jwt.secret").server("watch = \"all\"");
    fs::write(&file, third.text()).unwrap();
    wait_until("the missing file is refused", TIMEOUT, || refused(&gate) > 1.0);
    fs::create_dir(gate.folder.path().join("later")).unwrap();
    fs::write(gate.folder.path().join("later/jwt.secret"), signer.file()).unwrap();
    wait_until("the file is found", TIMEOUT, || {
        gate.call(&get("/x").bearer(&signer.access())).status == 200
    });

    // Then nothing is watched any more.
    fs::write(&file, third.server("watch = \"off\"").text()).unwrap();
    wait_until("no file is watched", TIMEOUT, || !watches(&gate));
}

/// Whether the system sends events of files to the gateway.
fn watches(gate: &Gate) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", gate.pid())).expect("it runs");
    let mut links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.any(|link| link.to_string_lossy().contains("inotify"))
}

#[test]
fn off_watches_nothing_and_sighup_reads_the_files() {
    let upstream = RecordingUpstream::start();
    let (old, new) = (Signer::new(Algorithm::HS256), Signer::new(Algorithm::HS256));
    let on = with_secret(&upstream, "jwt.secret").file("jwt.secret", old.file());
    let watching = Gate::start(&on);
    wait_until("files are watched by default", TIMEOUT, || watches(&watching));
    let gate = Gate::start(&on.server("watch = \"off\""));
    assert!(!watches(&gate));
    fs::write(gate.folder.path().join("jwt.secret"), new.file()).unwrap();
    gate.signal("HUP");
    expect_secret(&mut gate.connect(), &old, &new, "SIGHUP");
}

#[test]
fn files_without_events_are_checked_every_30_seconds() {
    let upstream = RecordingUpstream::start();
    let (old, new) = (Signer::new(Algorithm::HS256), Signer::new(Algorithm::HS256));
    let folder = tempfile::TempDir::new().expect("a folder");
    with_secret(&upstream, "jwt.secret")
        .file("jwt.secret", old.file())
        .write(folder.path());
    // A user without instances of inotify gets no events.
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "sh", "-c"])
        .arg("echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" run --config \"$1\"")
        .arg(env!("CARGO_BIN_EXE_authgate"))
        .arg(folder.path().join("gateway.toml"))
        .env("NO_COLOR", "1");
    let gate = Gate::of(command, folder, None);
    gate.logged(&["files cannot be watched for events"]);
    let mut conn = gate.connect();
    assert_eq!(conn.call(&get("/x").bearer(&old.access())).status, 200);
    fs::write(gate.folder.path().join("jwt.secret"), new.file()).unwrap();
    wait_until("the next check", Duration::from_secs(60), || {
        conn.call(&get("/x").bearer(&new.access())).status == 200
    });
    assert!(!watches(&gate));
}

#[test]
fn a_refused_file_is_tried_again_when_a_file_that_it_names_appears() {
    let upstream = RecordingUpstream::start();
    let folder = tempfile::tempdir().unwrap();
    let store = format!(
        "[stores.local]\nkind = \"embedded\"\nfile = \"{}\"\n",
        folder.path().join("tokens.toml").display()
    );
    let config = config().app(&upstream).public("/x");
    // The configuration in force names no file.
    let gate = Gate::start(&config);
    let secret = gate.folder.path().join("app.secret");
    let name = "secret_header = { name = \"X-Gateway-Secret\", value = { file = \"app.secret\" } }";
    config.with(name).tables(&store).write(gate.folder.path());
    gate.signal("HUP");
    wait_until("the file is refused", TIMEOUT, || refused(&gate) == 1.0);
    // The store watches its own file.
    fs::write(
        folder.path().join("tokens.toml"),
        "layout = { version = 1, epoch = \"e\" }\n",
    )
    .unwrap();
    fs::write(&secret, "canary-0123456789abcdef").unwrap();
    wait_until("it is applied", TIMEOUT, || applied(&gate) == 1.0);
    assert_eq!(refused(&gate), 1.0);
}
