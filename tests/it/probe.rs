//! `authgate probe`.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::harness::pki::Pki;
use crate::harness::program::{Ended, authgate, authgate_with_input};
use crate::harness::{Gate, RecordingUpstream, config};
use crate::reload_listeners::free_port;

fn probe(gate: &Gate, arguments: &[&str]) -> Ended {
    let ended = authgate(gate.folder.path(), &[&["probe"], arguments].concat());
    let lines = ended.out.lines().count() + ended.err.lines().count();
    assert_eq!(lines, 1, "one line says why: {ended:?}");
    ended
}

#[test]
fn a_ready_gateway_is_exit_code_0_wherever_its_probes_are() {
    let (upstream, port) = (RecordingUpstream::start(), free_port());
    let first = config()
        .app(&upstream)
        .public("/x")
        .admin("listen = [\"127.0.0.1:0\", \"unix:admin.sock\"]");
    let gate = Gate::start(&first.clone().tables(&format!("[probes]\nlisten = \"0.0.0.0:{port}\"")));
    let probes = format!("http://127.0.0.1:{port}");
    assert_eq!(probe(&gate, &[]).good(), format!("{probes}/readyz: 200 OK\n"));
    // Without `[probes]`, the file names a socket file of `[admin]`. Errors elsewhere do not matter.
    first.server("wrokers = 2").write(gate.folder.path());
    assert!(probe(&gate, &[]).good().contains("admin.sock/readyz: 200 OK"));
    for (url, path) in [
        (probes.clone(), "/readyz"),
        (format!("{probes}/livez"), ""),
        (format!("http://{}", gate.admin), "/readyz"),
        ("unix:admin.sock".to_owned(), "/readyz"),
    ] {
        let expected = format!("{url}{path}: 200 OK\n");
        assert_eq!(probe(&gate, &["--url", &url]).good(), expected);
    }
    let ended = probe(&gate, &["--url", &format!("{probes}/metrics")]);
    assert!(
        ended.code == 1 && ended.err.contains("404 Not Found: Not found. Available: "),
        "{ended:?}"
    );
}

#[test]
fn an_address_from_the_environment_is_probed() {
    let (upstream, port) = (RecordingUpstream::start(), free_port());
    let gate = Gate::start(&config().app(&upstream).public("/x").tables(&format!(
        "[probes]\nlisten = {{ env = \"AUTHGATE_TEST_PROBES\", default = \"127.0.0.1:{port}\" }}"
    )));
    assert!(probe(&gate, &[]).good().contains(&format!(":{port}/readyz: 200 OK")));
}

#[test]
fn a_gateway_that_is_not_ready_or_not_there_is_exit_code_1_with_the_reason() {
    let upstream = RecordingUpstream::start();
    let redis = "[stores.redis]\nkind = \"redis\"\nurl = \"unix:///nonexistent/redis.sock\"\n";
    let first = config().app(&upstream).tables(redis).token("").protected("/x");
    let gate = Gate::spawn(&first);
    let ended = probe(&gate, &["--url", &format!("http://{}", gate.admin)]);
    let expected = format!(
        "error: http://{}/readyz: 503 Service Unavailable: not reached yet: redis\n",
        gate.admin
    );
    assert_eq!((ended.code, ended.err), (1, expected));
    let nowhere = format!("127.0.0.1:{}", free_port());
    first
        .admin(&format!("listen = [\"{nowhere}\", \"unix:none.sock\"]"))
        .write(gate.folder.path());
    let ended = probe(&gate, &[]);
    assert_eq!(ended.code, 1);
    for part in [
        "no gateway answers",
        "none.sock: No such file",
        &nowhere,
        "Connection refused",
    ] {
        assert!(ended.err.contains(part), "{part} is not in {}", ended.err);
    }
    let ended = probe(&gate, &["--config", "none.toml"]);
    assert!(ended.code == 1 && ended.err.contains("--url"), "{ended:?}");
    let ended = probe(&gate, &["--url", "127.0.0.1:9902"]);
    assert!(ended.code == 2 && ended.err.contains("http://HOST:PORT"), "{ended:?}");
}

#[test]
fn a_listener_that_does_not_answer_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let held = std::thread::spawn(move || {
        let (mut tcp, _) = silent.accept().expect("a client");
        let _ = tcp.read(&mut [0; 1024]);
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        let _ = tcp.read_to_end(&mut Vec::new());
    });
    let folder = tempfile::tempdir().expect("a folder");
    let ended = authgate_with_input(folder.path(), &["probe", "--url", &url], b"");
    assert!(
        ended.code == 1 && ended.err.contains("no answer within 5s"),
        "{ended:?}"
    );
    held.join().expect("it ends with the connection");
}

#[test]
fn probes_over_tls_need_a_certificate_that_the_authorities_have_signed() {
    let (upstream, pki) = (RecordingUpstream::start(), Pki::new());
    let gate = Gate::start(
        &config()
            .app(&upstream)
            .public("/x")
            .tls(&pki, &[&["localhost"]])
            .file("root.pem", pki.root_pem()),
    );
    // It serves HTTP/2 too, which commands do not speak.
    let url = format!("https://localhost:{}/x", gate.address.port());
    assert!(
        probe(&gate, &["--url", &url, "--ca", "root.pem"])
            .good()
            .ends_with("/x: 200 OK\n")
    );
    let ended = probe(&gate, &["--url", &url]);
    assert!(ended.code == 1 && ended.err.contains("certificate"), "{ended:?}");
}
