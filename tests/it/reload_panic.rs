//! A reload that panics: a defect of the gateway must not end what still works.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::harness::gate::ask_admin;
use crate::harness::{InProcess, RecordingUpstream, config, get, post, signal, wait_until};

/// The next warning of `authgate_app::app` panics.
static PANICS: AtomicBool = AtomicBool::new(false);

struct PanickingLog;

impl<S: Subscriber> Layer<S> for PanickingLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let is_warning = *metadata.level() == Level::WARN && metadata.target() == "authgate_app::app";
        if is_warning && PANICS.swap(false, Ordering::SeqCst) {
            panic!("for this test");
        }
    }
}

#[test]
fn a_reload_that_panics_is_refused_and_the_next_one_works() {
    let log = tracing_subscriber::registry().with(PanickingLog);
    tracing::subscriber::set_global_default(log).expect("this test is a process of its own");
    let upstream = RecordingUpstream::start();
    // More than the limit of open files permits: each reload warns of that.
    let config = config().app(&upstream).public("/x").limits("connections = 10000000");
    let gate = InProcess::with_file(&config);
    let reloads = |outcome: &str| gate.metric(&format!("authgate_reloads_total{{outcome=\"{outcome}\"}}"));
    let after = |what: &str, outcome: &str, count: f64| {
        wait_until(what, Duration::from_secs(20), || reloads(outcome) == count);
    };
    let hangup = || signal(std::process::id(), "HUP");

    PANICS.store(true, Ordering::SeqCst);
    hangup();
    after("the reload has stopped", "refused", 1.0);
    assert!(!PANICS.load(Ordering::SeqCst), "it has panicked");
    let status = ask_admin(gate.admin, &get("/status.json").host("127.0.0.1")).json();
    let problem = &status["configuration"]["refused"]["problems"][0];
    assert!(
        problem["message"].as_str().unwrap().contains("a defect of the gateway"),
        "{status}"
    );
    assert_eq!(gate.connect().call(&get("/x")).status, 200);

    hangup();
    after("the next reload works", "applied", 1.0);
    PANICS.store(true, Ordering::SeqCst);
    let command = || {
        ask_admin(
            gate.admin,
            &post("/reload", "")
                .host("127.0.0.1")
                .header("X-Authgate-Command", "reload"),
        )
    };
    let refused = command();
    assert_eq!((refused.status, reloads("refused")), (422, 2.0));
    assert_eq!((command().status, reloads("applied")), (200, 2.0));
    gate.stop();
}
