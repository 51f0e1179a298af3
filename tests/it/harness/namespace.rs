//! Namespaces of its own for a test. The ports 443 and 80 are free in them, and the host names of the test lead to loopback. Its mounts are its own,
//! and all its processes end with it.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// Set where the test runs in the namespace.
const INSIDE: &str = "AUTHGATE_TEST_NAMESPACE";

/// Runs the body of a test in a namespace: the test program starts itself there, for this test alone. `hosts`: names and their addresses.
///
/// The test fails if the machine allows no namespaces.
pub fn in_namespaces(test: &str, hosts: &[(&str, &str)], body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hosts");
    let lines = hosts.iter().map(|(name, address)| format!("{address} {name}\n"));
    let lines: String = std::iter::once("127.0.0.1 localhost\n".to_owned())
        .chain(lines)
        .collect();
    std::fs::write(&file, lines).expect("writable");
    let mut command = Command::new("unshare");
    if std::fs::metadata("/proc/self").expect("Linux").uid() != 0 {
        command.arg("--map-root-user");
    }
    let enter = "ip link set lo up; mount --bind \"$1\" /etc/hosts; shift; exec \"$@\"";
    command
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--", "sh", "-ec", enter, "sh"])
        .arg(&file)
        .arg(std::env::current_exe().expect("the test program"))
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1");
    let output = command.output().expect("unshare, of util-linux");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success() && out.contains("1 passed"),
        "in the namespaces (it needs unshare, ip and mount):\n{out}\n{err}"
    );
}
