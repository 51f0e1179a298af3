//! `on_outage` and `stale_for`.

use std::time::Duration;

use authgate_auth::cache::OnOutage;

use super::{check, read, warnings};
use crate::config::Config;

fn tables(more: &str) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n\
         [stores.redis]\nkind = \"redis\"\nurl = \"redis://127.0.0.1/\"\n\
         [upstreams.app]\nservers = [\"http://127.0.0.1:8000\"]\n\
         [[routes]]\npath = \"/*\"\nupstream = \"app\"\nauthenticate = [\"a\"]\n\
         [authenticators.a]\n{more}\n"
    )
}

fn on_outage(config: &Config) -> OnOutage {
    config.authenticators["a"].on_outage
}

const TOKEN: &str = "kind = \"token\"\nstore = \"redis\"\n";
const JWT: &str = "kind = \"jwt\"\nprofile = \"plain\"\nkeys = [{ algorithm = \"HS256\", secret = \"a secret of a good many bytes, forty\" }]\n";

#[test]
fn outages_are_denied_unless_the_file_says_otherwise() {
    for (lines, expected) in [
        ("", OnOutage::Deny),
        ("on_outage = \"deny\"\n", OnOutage::Deny),
        (
            "on_outage = \"serve-cached\"\n",
            OnOutage::ServeCached {
                stale_for: Duration::from_secs(300),
            },
        ),
        (
            "on_outage = \"serve-cached\"\nstale_for = \"90s\"\n",
            OnOutage::ServeCached {
                stale_for: Duration::from_secs(90),
            },
        ),
    ] {
        for kind in [
            TOKEN,
            &format!("{JWT}users = \"redis\"\n"),
            &format!("{JWT}jti_claim = \"jti\"\nrevocation = \"redis\"\n"),
        ] {
            let loaded = read(&tables(&format!("{kind}{lines}"))).expect("it is taken");
            assert_eq!(on_outage(&loaded.config), expected, "{kind}{lines}");
            assert!(warnings(&loaded).is_empty(), "{:?}", loaded.warnings);
        }
    }
}

#[test]
fn on_outage_without_a_cache_or_an_effect_is_reported() {
    let served = "on_outage = \"serve-cached\"\n";
    for off in ["cache = { entries = 0 }", "cache = { ttl = \"0s\" }"] {
        check(
            &tables(&format!("{TOKEN}{served}{off}")),
            &[&[
                "error[authenticators.a.on_outage]",
                "the cache is off",
                "write `cache = {",
            ]],
        );
    }
    for lines in ["stale_for = \"5m\"", "on_outage = \"deny\"\nstale_for = \"5m\""] {
        check(
            &tables(&format!("{TOKEN}{lines}")),
            &[&[
                "error[authenticators.a.stale_for]",
                "has no effect without",
                "remove it",
            ]],
        );
    }
    check(
        &tables(&format!("{TOKEN}{served}stale_for = \"0s\"")),
        &[&["error[authenticators.a.stale_for]"]],
    );
    let loaded = read(&tables(&format!("{JWT}{served}"))).expect("a warning");
    let [unused] = warnings(&loaded)[..] else {
        panic!("{:?}", loaded.warnings)
    };
    assert!(unused.message.contains("`on_outage` has no effect"), "{unused:?}");
}
