//! [`Recorder`]: records requests. One thread seals and writes them.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use authgate_auth::PROOF_HEADER;
use authgate_http::log_throttle::LogThrottle;
use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderName, Method};
use prometheus_client::metrics::counter::Counter;
use tracing::error;

use super::line::{MAX_BODY, PlainRequest, RecordedRequest};
use super::seal::{Seal, SealKey};

/// Requests that wait for the thread. Each has at most a head and [`MAX_BODY`].
const QUEUE: usize = 512;
/// The longest file. What does not fit is not recorded.
pub const MAX_FILE: u64 = 1 << 30;
/// How long lines may wait in memory.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// The longest wait for the thread at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Fields that carry credentials, whatever the configuration says.
const CREDENTIALS: [HeaderName; 7] = [
    AUTHORIZATION,
    COOKIE,
    PROXY_AUTHORIZATION,
    // A page may put a token there.
    SEC_WEBSOCKET_PROTOCOL,
    PROOF_HEADER,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-auth-token"),
];

/// `[log] record`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecorderSettings {
    /// The file that the requests are appended to.
    pub file: PathBuf,
    /// Seals their credentials.
    pub key: SealKey,
}

/// How many requests were written, and how many were not.
#[derive(Debug, Clone, Default)]
pub struct RecorderMetrics {
    /// Requests in the file.
    pub written: Counter,
    /// Requests that were lost: the thread or the disk is too slow, broken or full.
    pub dropped: Counter,
}

/// Records requests for one configuration.
#[derive(Debug)]
pub struct Recorder {
    settings: RecorderSettings,
    /// The fields whose values are sealed.
    credentials: Arc<[HeaderName]>,
    metrics: RecorderMetrics,
    queue: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Record(Box<Entry>),
    /// Write everything before this, and answer.
    Flush(SyncSender<()>),
}

#[derive(Debug)]
struct Entry {
    request: PlainRequest,
    credentials: Arc<[HeaderName]>,
    seals_body: bool,
}

impl Recorder {
    /// Starts the thread. It opens the file with the first request. `credentials`: the fields that authenticators read.
    pub fn start(settings: RecorderSettings, credentials: &[HeaderName], metrics: RecorderMetrics) -> Self {
        let (queue, messages) = sync_channel(QUEUE);
        let mut writer = Writer {
            file: settings.file.clone(),
            seal: Seal::new(&settings.key),
            metrics: metrics.clone(),
            open: None,
            failures: LogThrottle::default(),
        };
        let spawned = thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(move || writer.run(&messages));
        if let Err(problem) = spawned {
            error!(reason = %problem, "requests are not recorded: the thread cannot be started");
        }
        Self {
            credentials: all(credentials),
            settings,
            metrics,
            queue,
        }
    }

    /// The settings.
    pub fn settings(&self) -> &RecorderSettings {
        &self.settings
    }

    /// The same thread and file, for a configuration whose authenticators read these fields.
    #[must_use]
    pub fn with_credentials(&self, credentials: &[HeaderName]) -> Self {
        Self {
            settings: self.settings.clone(),
            credentials: all(credentials),
            metrics: self.metrics.clone(),
            queue: self.queue.clone(),
        }
    }

    /// Begins to record a request. `seals_body`: its body may have a credential.
    pub fn begin(self: &Arc<Self>, method: Method, url: String, headers: HeaderMap, seals_body: bool) -> Recording {
        let request = PlainRequest {
            method,
            url,
            headers,
            body: None,
        };
        Recording {
            recorder: Arc::clone(self),
            entry: Some(Box::new(Entry {
                request,
                credentials: Arc::clone(&self.credentials),
                seals_body,
            })),
        }
    }

    /// Waits until the requests so far are in the file, for at most a second.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    fn record(&self, entry: Box<Entry>) {
        match self.queue.try_send(Message::Record(entry)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.metrics.dropped.inc();
            }
        }
    }
}

fn all(credentials: &[HeaderName]) -> Arc<[HeaderName]> {
    CREDENTIALS.into_iter().chain(credentials.iter().cloned()).collect()
}

/// A request that is being recorded. It is written when this is dropped.
#[derive(Debug)]
pub struct Recording {
    recorder: Arc<Recorder>,
    /// `Some` until the drop.
    entry: Option<Box<Entry>>,
}

impl Recording {
    /// Adds the whole body, unless it is longer than [`MAX_BODY`].
    pub fn set_body(&mut self, body: Bytes) {
        if let Some(entry) = &mut self.entry
            && body.len() <= MAX_BODY
        {
            entry.request.body = Some(body);
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.recorder.record(entry);
        }
    }
}

/// The thread.
struct Writer {
    file: PathBuf,
    seal: Seal,
    metrics: RecorderMetrics,
    /// The file, and the room that is left in it.
    open: Option<(BufWriter<File>, u64)>,
    failures: LogThrottle,
}

impl Writer {
    /// Ends when all recorders of this file are gone.
    fn run(&mut self, messages: &Receiver<Message>) {
        loop {
            match messages.recv_timeout(FLUSH_INTERVAL) {
                Ok(Message::Record(entry)) => {
                    if let Err(problem) = self.write(&entry) {
                        self.failed(&problem, 1);
                    }
                }
                Ok(Message::Flush(done)) => {
                    self.flush();
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
        }
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let recorded = RecordedRequest::sealed(&entry.request, &self.seal, &entry.credentials, entry.seals_body);
        let mut line = serde_json::to_vec(&recorded)?;
        line.push(b'\n');
        let (file, room) = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(open(&self.file)?),
        };
        let length = line.len() as u64;
        *room = room.checked_sub(length).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the file has {} MiB", MAX_FILE >> 20),
            )
        })?;
        file.write_all(&line)?;
        self.metrics.written.inc();
        Ok(())
    }

    fn flush(&mut self) {
        if let Some((file, _)) = &mut self.open
            && let Err(problem) = file.flush()
        {
            self.failed(&problem, 0);
        }
    }

    fn failed(&mut self, problem: &io::Error, dropped: u64) {
        self.metrics.dropped.inc_by(dropped);
        if problem.kind() != io::ErrorKind::FileTooLarge
            && let Some((file, _)) = self.open.take()
        {
            // What could not be written is lost: dropping it would try again.
            let _ = file.into_parts();
        }
        if let Some(times) = self.failures.note() {
            error!(file = %self.file.display(), reason = %problem, times, "requests are not recorded");
        }
    }
}

/// Opens the file to append, and returns the room that is left in it. A new file is readable by its owner only.
fn open(file: &PathBuf) -> io::Result<(BufWriter<File>, u64)> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
    let metadata = opened.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    if metadata.mode() & 0o077 != 0 {
        let problem = "others than its owner can read or write it: remove it, or `chmod 600` it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    Ok((BufWriter::new(opened), MAX_FILE.saturating_sub(metadata.len())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use authgate_core::secret::Secret;

    use super::super::seal::KEY_BYTES;
    use super::*;

    fn recorder(file: PathBuf) -> Arc<Recorder> {
        let key = SealKey::new(Secret::new(vec![7; KEY_BYTES])).expect("32 bytes");
        let settings = RecorderSettings { file, key };
        Arc::new(Recorder::start(settings, &[], RecorderMetrics::default()))
    }

    fn record(recorder: &Arc<Recorder>) {
        recorder.begin(Method::GET, "http://localhost/x".to_owned(), HeaderMap::new(), false);
        recorder.flush();
    }

    #[test]
    fn requests_are_appended_to_a_file_of_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("requests.jsonl");
        for _ in 0..2 {
            record(&recorder(file.clone()));
        }
        assert_eq!(fs::read_to_string(&file).expect("readable").lines().count(), 2);
        assert_eq!(fs::metadata(&file).expect("there").mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_others_can_read_and_a_full_one_are_not_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let (open, full) = (folder.path().join("open"), folder.path().join("full"));
        fs::write(&open, "").expect("writable");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("its owner");
        fs::write(&full, "").expect("writable");
        fs::set_permissions(&full, fs::Permissions::from_mode(0o600)).expect("its owner");
        File::options()
            .write(true)
            .open(&full)
            .and_then(|file| file.set_len(MAX_FILE - 10))
            .expect("writable");
        for (file, length) in [(open, 0), (full, MAX_FILE - 10), (folder.path().join("none/x"), 0)] {
            let recorder = recorder(file.clone());
            record(&recorder);
            record(&recorder);
            assert_eq!(
                (recorder.metrics.written.get(), recorder.metrics.dropped.get()),
                (0, 2),
                "{file:?}"
            );
            assert_eq!(fs::metadata(&file).map_or(0, |metadata| metadata.len()), length);
        }
    }
}
