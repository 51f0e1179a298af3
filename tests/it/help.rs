//! What `--help` promises.

use std::path::Path;

use crate::harness::program::authgate;

#[test]
fn help_of_store_commands_states_when_gateways_apply_changes() {
    for words in [
        &["user", "disable"][..],
        &["token", "revoke"],
        &["token", "show"],
        &["revoke"],
    ] {
        let help = authgate(Path::new("."), &[words, &["--help"]].concat()).good();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for text in ["within a second", "`invalidation = \"off\"`", "`cache.ttl`"] {
            assert!(help.contains(text), "{words:?} does not say {text}:\n{help}");
        }
    }
}
