//! Standard output for data, standard error for notes. Both escape control characters: records and tokens are untrusted text.

use std::fmt;
use std::io::{self, BufWriter, ErrorKind, Write};

use authgate_core::printable::PrintableWriter;
use serde::Serialize;

use crate::cli::Failure;

/// Writes data. A closed pipe (`| head`) is not a failure.
///
/// # Errors
/// Writing to standard output fails for another reason.
pub(super) fn data(produce: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = PrintableWriter(BufWriter::new(io::stdout().lock()));
    match produce(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
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
        write!(out, "[")?;
        for (at, value) in values.into_iter().enumerate() {
            writeln!(out, "{}", if at == 0 { "" } else { "," })?;
            serde_json::to_writer(&mut *out, &value)?;
        }
        writeln!(out, "\n]")
    })
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
