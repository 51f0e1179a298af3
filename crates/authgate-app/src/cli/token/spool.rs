//! Buffers the records of an import in an unlinked temporary file, so that a dump of any size needs little memory.
//!
//! The file has digests of tokens, never their keys.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::Failure;
use crate::provisioning::ProvisioningError;

/// Records of one type, in the order of `push`.
pub(super) struct Spool<T> {
    file: BufWriter<File>,
    count: usize,
    kind: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Spool<T> {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self {
            file: BufWriter::new(tempfile::tempfile().map_err(failed)?),
            count: 0,
            kind: PhantomData,
        })
    }

    pub(super) fn push(&mut self, record: &T) -> Result<(), Failure> {
        let written = serde_json::to_writer(&mut self.file, record).map_err(io::Error::from);
        written.and_then(|()| self.file.write_all(b"\n")).map_err(failed)?;
        self.count += 1;
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Reads all records in batches of `size`, until `take` returns [`Next::Stop`].
    pub(super) fn batches(
        &mut self,
        size: usize,
        mut take: impl FnMut(Vec<T>) -> Result<Next, Failure>,
    ) -> Result<(), Failure> {
        self.file.rewind().map_err(failed)?;
        let mut lines = BufReader::new(self.file.get_ref());
        let (mut batch, mut line) = (Vec::with_capacity(size.min(self.count)), Vec::new());
        for at in 1..=self.count {
            line.clear();
            lines.read_until(b'\n', &mut line).map_err(failed)?;
            batch.push(serde_json::from_slice(&line).map_err(|error| failed(error.into()))?);
            if batch.len() == size || at == self.count {
                let full = std::mem::replace(&mut batch, Vec::with_capacity(size));
                if take(full)? == Next::Stop {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Whether to continue with the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Continue,
    Stop,
}

fn failed(error: io::Error) -> Failure {
    ProvisioningError::TemporaryFile(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_back_in_batches() {
        let mut spool = Spool::new().expect("a temporary file");
        for at in 0..5_u32 {
            spool.push(&at).expect("writable");
        }
        for _ in 0..2 {
            let mut batches = Vec::new();
            let read = spool.batches(2, |batch| {
                batches.push(batch);
                Ok(Next::Continue)
            });
            assert!(read.is_ok());
            assert_eq!(batches, [vec![0, 1], vec![2, 3], vec![4]]);
        }
    }
}
