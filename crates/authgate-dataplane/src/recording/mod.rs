//! Recorded requests, which `authgate parity` sends again: their format, the seal of their credentials, and the thread that writes them.
//!
//! A recording is a file of JSON lines: `{"method","url","headers":[[name,value]],"body"}`. `body` is base64, or null if it is not recorded. A
//! header value or a body that has a credential is sealed ([`seal`]). Nothing here delays a request: if the thread falls behind, requests
//! are not recorded, and counted.

pub mod line;
mod recorder;
pub mod seal;

pub use self::recorder::{MAX_FILE, Recorder, RecorderMetrics, RecorderSettings, Recording};
