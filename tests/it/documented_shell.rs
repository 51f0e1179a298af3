//! Every shell block of the documentation is run as it is written, each page on a machine of its own: the gateway with real stores, under the
//! paths, ports, users and host names of the page. [`ELSEWHERE`] has the blocks that cannot be run here, and what runs the same commands.

use std::fs;
use std::path::Path;

use crate::documentation::pages;
use crate::floors::root;
use crate::harness::machine::{FollowedPage, on_a_machine};

mod changes;
mod credentials;
mod examples;
mod projects;
mod stores;

/// One test for each page.
macro_rules! follow {
    ($($page:literal: $module:ident::$scenario:ident,)*) => {
        /// The pages that are followed here.
        const FOLLOWED: &[&str] = &[$($page),*];

        $(#[test]
        fn $scenario() {
            on_a_machine(concat!("documented_shell::", stringify!($scenario)), |machine| {
                $module::$scenario(machine, &mut FollowedPage::new(machine, blocks_to_run($page)));
            });
        })*
    };
}

follow! {
    "README.md": projects::the_readme,
    "certs-example/README.md": credentials::certificates_and_keys_of_your_own,
    "docs/identity-providers.md": changes::a_token_of_an_identity_provider,
    "docs/operations/add-a-route.md": changes::a_new_route,
    "docs/operations/admin.md": credentials::requests_to_the_admin_listener,
    "docs/operations/back-up.md": stores::a_backup_and_its_restoration,
    "docs/operations/check.md": changes::a_check,
    "docs/operations/embedded-store.md": stores::an_embedded_store,
    "docs/operations/init.md": changes::a_first_file,
    "docs/operations/move-redis.md": stores::a_move_to_another_redis,
    "docs/operations/production.md": projects::a_production_gateway,
    "docs/operations/recording.md": changes::a_recording_and_its_parity,
    "docs/operations/redis-store.md": stores::a_flush_of_redis,
    "docs/operations/refusals.md": changes::the_reason_of_a_refusal,
    "docs/operations/renew-a-certificate.md": credentials::a_renewed_certificate,
    "docs/operations/revoke-a-user.md": credentials::revocations,
    "docs/operations/rotate-a-key.md": credentials::rotated_keys,
    "docs/operations/status-page.md": changes::the_status_page_over_ssh,
    "docs/operations/top.md": changes::the_status_in_a_terminal,
    "docs/operations/upgrade.md": changes::an_upgrade,
    "docs/start.md": projects::ten_minutes,
    "python/README.md": projects::the_package_for_django,
    "tests/django/README.md": projects::the_django_project,
}

/// A page that a test of its own follows.
const OWN_TEST: [(&str, &str); 1] = [(
    "docs/django.md",
    "fn every_command_of_the_django_page_works_as_it_is_written()",
)];

/// A block that is not run here.
struct Elsewhere {
    page: &'static str,
    /// A line of the block.
    line: &'static str,
    reason: &'static str,
    /// What runs the same: files of this project, and a text that is in each.
    instead: &'static [(&'static str, &'static str)],
}

const ELSEWHERE: &[Elsewhere] = &[
    Elsewhere {
        page: "README.md",
        line: "scripts/test",
        reason: "it runs these tests",
        instead: &[("scripts/test", "cargo nextest run --locked --workspace")],
    },
    Elsewhere {
        page: "CONTRIBUTING.md",
        line: "scripts/test                   # all checks that a change must pass",
        reason: "it runs these tests",
        instead: &[("scripts/test", "cargo nextest run --locked --workspace")],
    },
    Elsewhere {
        page: "CONTRIBUTING.md",
        line: "cargo build --release          # target/release/authgate",
        reason: "a build takes minutes. The tests have built the program with another profile",
        instead: &[
            ("scripts/test", "step cargo build --locked --profile ci"),
            ("scripts/test-packages", "cargo install --quiet --locked --path ."),
            ("tests/it/demo.rs", "fn every_printed_command_has_the_stated_result()"),
        ],
    },
    Elsewhere {
        page: "CONTRIBUTING.md",
        line: "cargo fmt --all --check",
        reason: "steps of scripts/test, which runs these tests",
        instead: &[
            (
                "scripts/test",
                "export AUTHGATE_VENV=\"$PWD/target/venv\" PATH=\"$PATH:$PWD/target/venv/bin\"",
            ),
            (
                "scripts/test",
                "export AUTHGATE_OIDC_PROVIDER=\"$PWD/target/oidc-provider\" AUTHGATE_BROWSER=\"$PWD/target/browser\"",
            ),
            ("scripts/test", "step cargo fmt --all --check"),
            (
                "scripts/test",
                "step cargo clippy --locked --workspace --all-targets --profile ci -- -D warnings",
            ),
            (
                "scripts/test",
                "step cargo nextest run --locked --workspace --cargo-profile ci",
            ),
            ("scripts/test", "step scripts/instructions"),
        ],
    },
    Elsewhere {
        page: "bench/README.md",
        line: "bench/run > table.md",
        reason: "it installs other proxies, and takes ten minutes on a machine that does nothing else. The same stage measures instructions",
        instead: &[
            ("scripts/test", "step scripts/load"),
            ("scripts/test", "step bench/fleet"),
        ],
    },
    Elsewhere {
        page: "docs/install.md",
        line: "rustup target add x86_64-unknown-linux-musl",
        reason: "the target is not in the package registries that tests use, and the page says that releases are not tested with musl",
        instead: &[("scripts/release", "+crt-static")],
    },
    Elsewhere {
        page: "docs/install.md",
        line: "docker build --file deploy/docker/Dockerfile --tag authgate .",
        reason: "it needs Docker. buildah builds the same file, and the image is run with the same restrictions",
        instead: &[(
            "scripts/test-packages",
            "--file deploy/docker/Dockerfile --tag authgate .",
        )],
    },
    Elsewhere {
        page: "docs/install.md",
        line: "helm install authgate deploy/helm/authgate --values my-values.yaml",
        reason: "it needs a cluster. The chart is rendered and compared with the schemas of the API",
        instead: &[("scripts/test-packages", "tests/packages/charts.py validate")],
    },
    Elsewhere {
        page: "docs/install.md",
        line: "docker compose up --detach --wait",
        reason: "it needs Docker. The services are run as processes, and sent the same requests",
        instead: &[
            ("scripts/test-packages", "tests/packages/compose.py"),
            ("tests/packages/compose.py", "/api/token/"),
            ("tests/packages/compose.py", "/api/me/"),
        ],
    },
    Elsewhere {
        page: "python/README.md",
        line: "pip install \"authgate-django[drf]\"",
        reason: "the package index does not have this version yet. Its extras are compared with pyproject.toml",
        instead: &[("python/pyproject.toml", "\ndrf = [")],
    },
    Elsewhere {
        page: "python/README.md",
        line: "pip install \"authgate-django[drf,signed]\"",
        reason: "the package index does not have this version yet. Its extras are compared with pyproject.toml",
        instead: &[
            ("python/pyproject.toml", "\ndrf = ["),
            ("python/pyproject.toml", "\nsigned = ["),
        ],
    },
    Elsewhere {
        page: "python/README.md",
        line: "pytest && ruff check && ruff format --check && mypy",
        reason: "they take a minute, and are steps of scripts/test",
        instead: &[
            ("scripts/test", "python/requirements-test.txt"),
            ("scripts/test", "python/requirements-test-4.2.txt"),
            ("scripts/test", "-m pytest --quiet"),
            ("scripts/test", "ruff check --no-cache python"),
            ("scripts/test", "ruff format --no-cache --check python"),
            ("scripts/test", "bin/mypy --config-file python/pyproject.toml"),
        ],
    },
    Elsewhere {
        page: "tests/django/README.md",
        line: "python3 -m venv venv && venv/bin/pip install -r requirements.txt ../../python",
        reason: "scripts/test has made this venv, which the other blocks use",
        instead: &[("scripts/test", "venv target/venv tests/django/requirements.txt")],
    },
];

impl Elsewhere {
    fn is(&self, page: &Path, block: &str) -> bool {
        page == Path::new(self.page) && block.lines().any(|line| line == self.line)
    }
}

/// The shell blocks of every page, in the order of the page.
fn shell_blocks() -> Vec<(std::path::PathBuf, String)> {
    let mut blocks = Vec::new();
    for page in pages() {
        for (info, block) in page.blocks() {
            if info.split(' ').next() == Some("sh") {
                blocks.push((page.path.clone(), block));
            }
        }
    }
    blocks
}

/// The blocks of a page but for those that are run elsewhere.
fn blocks_to_run(path: &str) -> Vec<String> {
    let own = shell_blocks().into_iter().filter(|(page, block)| {
        page == Path::new(path) && !ELSEWHERE.iter().any(|elsewhere| elsewhere.is(page, block))
    });
    own.map(|(_, block)| block).collect()
}

/// The only block of a page that is of this kind and has this text.
pub fn block_of(path: &str, kind: &str, words: &str) -> String {
    let pages = pages();
    let page = pages.iter().find(|page| page.path == Path::new(path)).unwrap();
    let mut found = page
        .blocks()
        .into_iter()
        .filter(|(info, block)| info == kind && block.contains(words));
    let (_, block) = found.next().unwrap_or_else(|| panic!("{path}: no block has {words:?}"));
    assert!(found.next().is_none(), "{path}: several blocks have {words:?}");
    block
}

#[test]
fn every_shell_block_is_run_here_or_by_a_named_part_of_the_project() {
    let blocks = shell_blocks();
    let not_run: Vec<_> = blocks
        .iter()
        .filter(|(page, block)| {
            let is_followed = FOLLOWED.iter().chain(OWN_TEST.iter().map(|(own, _)| own));
            !is_followed.into_iter().any(|followed| page == Path::new(followed))
                && !ELSEWHERE.iter().any(|elsewhere| elsewhere.is(page, block))
        })
        .collect();
    assert!(not_run.is_empty(), "nothing runs {not_run:#?}");
    assert!(blocks.len() > 70, "{} blocks", blocks.len());
    for page in FOLLOWED {
        assert!(!blocks_to_run(page).is_empty(), "{page} has no block");
    }
}

#[test]
fn what_runs_a_block_elsewhere_is_there() {
    let blocks = shell_blocks();
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    for elsewhere in ELSEWHERE {
        let Elsewhere {
            page,
            line,
            reason,
            instead,
        } = elsewhere;
        let matching = blocks.iter().filter(|(page, block)| elsewhere.is(page, block));
        assert_eq!(matching.count(), 1, "{page}: blocks with the line {line:?}");
        assert!(!reason.is_empty() && !instead.is_empty());
        for (file, text) in *instead {
            assert!(read(file).contains(text), "{page}: {line}: {file} has no {text:?}");
        }
    }
    for (page, test) in OWN_TEST {
        assert!(read("tests/it/django_page.rs").contains(test), "{page}");
    }
}
