//! [`Viewers`]: the open pages that follow the status by server-sent events. Each event is rendered once for all of them, and not at all without
//! viewers. A viewer that reads slowly skips events: only the newest one is kept.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use authgate_http::server::stage::Stage;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

/// The most viewers. Further ones get 503.
const MAX_VIEWERS: usize = 16;
/// A stream ends at this age, and the browser opens another one: so a forgotten page does not hold a connection for ever.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// How long a browser waits before it connects again.
const RETRY: &[u8] = b"retry: 2000\n\n";

/// The open pages.
#[derive(Debug)]
pub struct Viewers {
    /// The newest event.
    event: watch::Sender<Bytes>,
    permits: Arc<Semaphore>,
}

/// The body of a response with events.
pub(in crate::control) type EventStream =
    StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

struct Viewer<F> {
    /// What is sent at once.
    first: Vec<Bytes>,
    events: watch::Receiver<Bytes>,
    stage: watch::Receiver<Stage>,
    may_follow: F,
    ends: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Default for Viewers {
    fn default() -> Self {
        Self {
            event: watch::Sender::default(),
            permits: Arc::new(Semaphore::new(MAX_VIEWERS)),
        }
    }
}

impl Viewers {
    /// Whether a page follows the status.
    pub(in crate::control) fn are_there(&self) -> bool {
        self.event.receiver_count() > 0
    }

    /// Sends an event to all viewers.
    pub(in crate::control) fn send(&self, event: String) {
        self.event.send_replace(event.into());
    }

    /// Adds a viewer: it gets `event` at once, and then each further one for which `may_follow` is true. Its stream ends when a drain begins.
    /// `None`: there are too many viewers.
    pub(in crate::control) fn add(
        &self,
        event: String,
        stage: watch::Receiver<Stage>,
        may_follow: impl Fn() -> bool + Send + 'static,
    ) -> Option<EventStream> {
        let viewer = Viewer {
            _permit: Arc::clone(&self.permits).try_acquire_owned().ok()?,
            first: vec![event.into(), Bytes::from_static(RETRY)],
            events: self.event.subscribe(),
            stage,
            may_follow,
            ends: Instant::now() + MAX_AGE,
        };
        Some(StreamBody::new(Box::pin(stream::unfold(viewer, next))))
    }
}

async fn next<F: Fn() -> bool>(mut viewer: Viewer<F>) -> Option<(Result<Frame<Bytes>, Infallible>, Viewer<F>)> {
    if let Some(first) = viewer.first.pop() {
        return Some((Ok(Frame::data(first)), viewer));
    }
    tokio::select! {
        changed = timeout_at(viewer.ends, viewer.events.changed()) => changed.ok()?.ok()?,
        _ = viewer.stage.wait_for(|stage| *stage >= Stage::Draining) => return None,
    }
    if !(viewer.may_follow)() {
        return None;
    }
    let event = viewer.events.borrow_and_update().clone();
    Some((Ok(Frame::data(event)), viewer))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn read(stream: &mut EventStream) -> Option<String> {
        let frame = stream.frame().await?.expect("it cannot fail");
        let data = frame.into_data().expect("no trailers");
        Some(String::from_utf8(data.to_vec()).expect("text"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_viewer_skips_events_and_the_stream_ends_with_the_drain_or_the_right_to_follow() {
        let (viewers, (stage, stages)) = (Viewers::default(), watch::channel(Stage::Serving));
        let (may_follow, follows) = watch::channel(true);
        let mut one = viewers
            .add("now".to_owned(), stages.clone(), || true)
            .expect("a permit");
        let mut other = viewers
            .add("now".to_owned(), stages, move || *follows.borrow())
            .expect("a permit");
        assert_eq!(read(&mut one).await.as_deref(), Some("retry: 2000\n\n"));
        assert_eq!(read(&mut one).await.as_deref(), Some("now"));
        for event in ["1", "2", "3"] {
            viewers.send(event.to_owned());
        }
        assert_eq!(read(&mut one).await.as_deref(), Some("3"));
        for expected in ["retry: 2000\n\n", "now", "3"] {
            assert_eq!(read(&mut other).await.as_deref(), Some(expected));
        }
        may_follow.send_replace(false);
        viewers.send("4".to_owned());
        assert_eq!(read(&mut other).await, None);
        assert_eq!(read(&mut one).await.as_deref(), Some("4"));
        stage.send_replace(Stage::Draining);
        assert_eq!(read(&mut one).await, None);
        drop((one, other));
        assert!(!viewers.are_there());
    }

    #[tokio::test(start_paused = true)]
    async fn viewers_are_bounded_and_a_stream_has_an_end() {
        let (viewers, (_stage, stages)) = (Viewers::default(), watch::channel(Stage::Serving));
        let add = || viewers.add(String::new(), stages.clone(), || true);
        let mut open: Vec<EventStream> = (0..MAX_VIEWERS).map(|_| add().expect("a permit")).collect();
        assert!(add().is_none());
        let mut one = open.pop().expect("there are some");
        assert!(read(&mut one).await.is_some() && read(&mut one).await.is_some());
        let began = Instant::now();
        assert_eq!(read(&mut one).await, None);
        assert_eq!(began.elapsed(), MAX_AGE);
        drop(one);
        assert!(add().is_some());
    }
}
