//! Standard output for data, standard error for notes. Both escape control characters: records and tokens are untrusted text.

use std::fmt;
use std::io::{self, BufWriter, ErrorKind, Write};

use authgate_core::printable::PrintableWriter;
use serde::Serialize;

use crate::cli::Failure;
use crate::provisioning::ProvisioningError;

/// Writes data. A closed pipe (`| head`) is not a failure.
///
/// # Errors
/// Writing to standard output fails for another reason.
pub(super) fn data(produce: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    stream(|out| Ok(produce(out)?))
}

/// Writes records while they are read. A closed pipe ends the command early, and is not a failure.
///
/// # Errors
/// The records cannot be read, or writing to standard output fails for another reason.
pub(super) fn stream(produce: impl FnOnce(&mut dyn Write) -> Result<(), StreamError>) -> Result<(), Failure> {
    let mut out = PrintableWriter(BufWriter::new(io::stdout().lock()));
    let produced = produce(&mut out).and_then(|()| Ok(out.flush()?));
    match produced {
        Ok(()) => Ok(()),
        Err(StreamError::Write(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(StreamError::Write(error)) => Err(Failure::Failed(format!("cannot write to standard output: {error}"))),
        Err(StreamError::Read(error)) => {
            // The records before it are data, so standard output gets them.
            let _ = out.flush();
            Err(Failure::Failed(format!("{error}; the output is incomplete")))
        }
    }
}

/// Writes data that is not escaped, since it has no untrusted part. A closed pipe is not a failure.
///
/// # Errors
/// Writing to standard output fails for another reason.
pub(super) fn bytes(data: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Why [`stream`] ended early.
#[derive(Debug)]
pub(super) enum StreamError {
    /// Standard output.
    Write(io::Error),
    /// The store.
    Read(ProvisioningError),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<ProvisioningError> for StreamError {
    fn from(error: ProvisioningError) -> Self {
        Self::Read(error)
    }
}

/// Writes one line of data.
///
/// # Errors
/// As [`data`].
pub(super) fn line(text: fmt::Arguments<'_>) -> Result<(), Failure> {
    data(|out| writeln!(out, "{text}"))
}

/// Writes one JSON value on one line.
///
/// # Errors
/// As [`data`].
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    data(|out| {
        serde_json::to_writer(&mut *out, value)?;
        writeln!(out)
    })
}

/// Writes a JSON array, one element per line.
///
/// # Errors
/// As [`data`].
pub(super) fn json_array<V: Serialize>(values: impl IntoIterator<Item = V>) -> Result<(), Failure> {
    data(|out| {
        let mut array = JsonArray::default();
        values.into_iter().try_for_each(|value| array.push(out, &value))?;
        array.finish(out)
    })
}

/// A JSON array that is written element by element, one per line.
#[derive(Debug, Default)]
pub(super) struct JsonArray {
    has_elements: bool,
}

impl JsonArray {
    pub(super) fn push(&mut self, out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
        writeln!(out, "{}", if self.has_elements { "," } else { "[" })?;
        self.has_elements = true;
        Ok(serde_json::to_writer(out, value)?)
    }

    pub(super) fn finish(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}", if self.has_elements { "" } else { "[" })?;
        writeln!(out, "\n]")
    }
}

/// Writes a note for the operator to standard error.
pub(super) fn note(text: fmt::Arguments<'_>) {
    // If standard error is closed, there is nowhere left to report it.
    let _ = writeln!(PrintableWriter(io::stderr()), "note: {text}");
}

/// Writes a problem of a configuration to standard error.
pub(super) fn problem(text: fmt::Arguments<'_>) {
    let _ = writeln!(PrintableWriter(io::stderr()), "{text}");
}
