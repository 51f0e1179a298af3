//! `POST /reload`: how the admin listener asks the process to read its configuration again, and how it answers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tracing::error;

use super::{json as json_response, text};

/// How a reload ended.
#[derive(Debug, Clone)]
pub enum ReloadOutcome {
    /// The configuration is in force.
    Applied {
        /// What has changed, one line for each change.
        changes: Vec<String>,
        /// Its warnings, as objects in the form of `authgate check --json`.
        warnings: Vec<Value>,
    },
    /// The configuration cannot be used, and nothing has changed.
    Refused {
        /// The errors and warnings, as objects in the form of `authgate check --json`.
        problems: Vec<Value>,
    },
    /// Another reload is under way.
    Busy,
    /// The gateway is shutting down.
    Stopping,
}

type Running = Pin<Box<dyn Future<Output = ReloadOutcome> + Send>>;

/// Reads the configuration again when it is called. Nothing is connected in a process that has no file to read.
#[derive(Default)]
pub struct ReloadHook(OnceLock<Box<dyn Fn() -> Running + Send + Sync>>);

impl fmt::Debug for ReloadHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReloadHook").field(&self.0.get().is_some()).finish()
    }
}

impl ReloadHook {
    /// Calls `reload` for each `POST /reload` from now on. Only the first call has an effect.
    pub fn connect<F>(&self, reload: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ReloadOutcome> + Send + 'static,
    {
        let _ = self.0.set(Box::new(move || Box::pin(reload())));
    }

    /// Reads the configuration again, and answers with the result. A client that disconnects does not stop the reload.
    pub(super) async fn answer(&self) -> Response<Full<Bytes>> {
        let Some(reload) = self.0.get() else {
            return text(
                StatusCode::NOT_IMPLEMENTED,
                "This process cannot read its configuration again. Restart it.\n",
            );
        };
        match tokio::spawn(reload()).await {
            Ok(ReloadOutcome::Applied { changes, warnings }) => {
                json_response(StatusCode::OK, &json!({ "changes": changes, "problems": warnings }))
            }
            Ok(ReloadOutcome::Refused { problems }) => {
                json_response(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "problems": problems }))
            }
            Ok(ReloadOutcome::Busy) => {
                let detail = "Another reload is under way. Try again when it has ended.";
                let mut response = json_response(StatusCode::CONFLICT, &json!({ "detail": detail }));
                let headers = response.headers_mut();
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
            Ok(ReloadOutcome::Stopping) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "The gateway is shutting down. The next one reads the configuration when it starts.\n",
            ),
            Err(problem) => {
                error!(reason = %problem, "a reload has stopped unexpectedly");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "The reload has stopped unexpectedly. The log has the reason.\n",
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;

    use super::*;

    async fn answered(hook: &ReloadHook) -> (u16, String) {
        let response = hook.answer().await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn each_outcome_has_its_status_and_its_body() {
        let none = ReloadHook::default();
        assert_eq!(answered(&none).await.0, 501);
        let problem = || json!({ "key": "server.listen", "severity": "error" });
        for (outcome, status, body) in [
            (
                ReloadOutcome::Applied {
                    changes: vec!["routes[0] is new".to_owned()],
                    warnings: Vec::new(),
                },
                200,
                json!({ "changes": ["routes[0] is new"], "problems": [] }),
            ),
            (
                ReloadOutcome::Refused {
                    problems: vec![problem()],
                },
                422,
                json!({ "problems": [problem()] }),
            ),
            (
                ReloadOutcome::Busy,
                409,
                json!({ "detail": "Another reload is under way. Try again when it has ended." }),
            ),
        ] {
            let hook = ReloadHook::default();
            hook.connect(move || std::future::ready(outcome.clone()));
            let (answered, text) = answered(&hook).await;
            let value: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!((answered, value), (status, body));
        }
        let broken = ReloadHook::default();
        broken.connect(|| async { panic!("for this test") });
        assert_eq!(answered(&broken).await.0, 500);
    }
    #[tokio::test]
    async fn a_client_that_disconnects_does_not_stop_the_reload() {
        let (hook, ended) = (ReloadHook::default(), Arc::new(Semaphore::new(0)));
        let counted = Arc::clone(&ended);
        hook.connect(move || {
            let counted = Arc::clone(&counted);
            async move {
                tokio::task::yield_now().await;
                counted.add_permits(1);
                ReloadOutcome::Busy
            }
        });
        tokio::select! {
            biased;
            _ = hook.answer() => panic!("it is under way"),
            () = std::future::ready(()) => {}
        }
        let _ = ended.acquire().await.expect("open");
    }
}
