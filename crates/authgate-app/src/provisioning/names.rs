//! Names of keys in sorted order, as many as a store has, in bounded memory: sorted runs are kept in an unlinked temporary file.
//!
//! `SCAN` may return a key twice and in any order, and a set of a million names would need too much memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::iter::Peekable;
use std::os::unix::fs::FileExt;

use super::ProvisioningError;

/// How many bytes of names are sorted at once.
const RUN_BYTES: usize = 1 << 20;
/// What a name in memory costs beside its text.
const OVERHEAD: usize = 40;
/// How many bytes of a run are read at once.
const READ_BYTES: usize = 4096;

/// Collects names in any order.
#[derive(Debug, Default)]
pub struct NameSorter {
    names: Vec<Box<str>>,
    // bytes <= RUN_BYTES, except within `push`
    bytes: usize,
    count: usize,
    file: Option<BufWriter<File>>,
    /// The position in `file` after each run.
    ends: Vec<u64>,
}

impl NameSorter {
    /// Adds a name.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub fn push(&mut self, name: &str) -> Result<(), ProvisioningError> {
        self.names.push(name.into());
        self.bytes += name.len() + OVERHEAD;
        self.count += 1;
        if self.bytes > RUN_BYTES {
            self.write_run().map_err(ProvisioningError::TemporaryFile)?;
        }
        Ok(())
    }

    fn write_run(&mut self) -> io::Result<()> {
        self.names.sort_unstable();
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(BufWriter::new(tempfile::tempfile()?)),
        };
        for name in self.names.drain(..) {
            file.write_all(&name.len().to_ne_bytes())?;
            file.write_all(name.as_bytes())?;
        }
        self.bytes = 0;
        self.ends.push(file.stream_position()?);
        Ok(())
    }

    /// Sorts the names.
    ///
    /// # Errors
    /// The temporary file cannot be written.
    pub fn finish(mut self) -> Result<SortedNames, ProvisioningError> {
        self.names.sort_unstable();
        let file = self.file.map(BufWriter::into_inner).transpose();
        Ok(SortedNames {
            file: file.map_err(|error| ProvisioningError::TemporaryFile(error.into_error()))?,
            ends: self.ends,
            last: self.names,
            count: self.count,
        })
    }
}

/// Sorted names.
#[derive(Debug)]
pub struct SortedNames {
    file: Option<File>,
    ends: Vec<u64>,
    /// The names of the last run, which stays in memory.
    last: Vec<Box<str>>,
    count: usize,
}

impl SortedNames {
    /// How many names were added, with those that were added twice.
    pub fn count(&self) -> usize {
        self.count
    }

    /// All names in order. A name that was added twice is there twice.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub fn with_repeats(&self) -> Result<WithRepeats<'_>, ProvisioningError> {
        let mut runs: Vec<Run<'_>> = vec![Run::Memory(self.last.iter())];
        let mut at = 0;
        for end in &self.ends {
            if let Some(file) = &self.file {
                let part = Part { file, at, end: *end };
                runs.push(Run::File(BufReader::with_capacity(READ_BYTES, part)));
            }
            at = *end;
        }
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for (index, run) in runs.iter_mut().enumerate() {
            let head = run.next().map_err(ProvisioningError::TemporaryFile)?;
            heads.extend(head.map(|name| Reverse((name, index))));
        }
        Ok(WithRepeats { runs, heads })
    }

    /// Each name once, in order.
    ///
    /// # Errors
    /// As [`SortedNames::with_repeats`].
    pub fn iter(&self) -> Result<Names<'_>, ProvisioningError> {
        Ok(Names {
            names: self.with_repeats()?.peekable(),
        })
    }

    /// Each name that is not in `others`, in order.
    ///
    /// # Errors
    /// As [`SortedNames::with_repeats`].
    pub fn without<'n>(&'n self, others: &'n Self) -> Result<Without<'n>, ProvisioningError> {
        Ok(Without {
            names: self.iter()?,
            others: others.iter()?.peekable(),
        })
    }
}

type Item = Result<String, ProvisioningError>;

/// The next names, at most `size`; `None`: there are no more.
///
/// # Errors
/// The temporary file cannot be read.
pub(super) fn next_batch(
    names: &mut impl Iterator<Item = Item>,
    size: usize,
) -> Result<Option<Vec<String>>, ProvisioningError> {
    let batch: Vec<String> = names.take(size).collect::<Result<_, _>>()?;
    Ok(Some(batch).filter(|batch| !batch.is_empty()))
}

/// See [`SortedNames::with_repeats`].
#[derive(Debug)]
pub struct WithRepeats<'n> {
    runs: Vec<Run<'n>>,
    /// The next name of each run that has one.
    heads: BinaryHeap<Reverse<(String, usize)>>,
}

impl Iterator for WithRepeats<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let mut head = self.heads.peek_mut()?;
        let index = head.0.1;
        Some(match self.runs[index].next() {
            Ok(Some(next)) => Ok(std::mem::replace(&mut head.0.0, next)),
            Ok(None) => Ok(PeekMut::pop(head).0.0),
            Err(error) => Err(ProvisioningError::TemporaryFile(error)),
        })
    }
}

/// See [`SortedNames::iter`].
#[derive(Debug)]
pub struct Names<'n> {
    names: Peekable<WithRepeats<'n>>,
}

impl Iterator for Names<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let name = match self.names.next()? {
            Ok(name) => name,
            error => return Some(error),
        };
        while self
            .names
            .next_if(|next| next.as_ref().is_ok_and(|next| *next == name))
            .is_some()
        {}
        Some(Ok(name))
    }
}

/// See [`SortedNames::without`].
#[derive(Debug)]
pub struct Without<'n> {
    names: Names<'n>,
    others: Peekable<Names<'n>>,
}

impl Iterator for Without<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            let name = match self.names.next()? {
                Ok(name) => name,
                error => return Some(error),
            };
            let smaller = |other: &Item| other.as_ref().is_ok_and(|other| *other < name);
            while self.others.next_if(smaller).is_some() {}
            match self
                .others
                .next_if(|other| other.as_ref().map_or(true, |other| *other == name))
            {
                None => return Some(Ok(name)),
                Some(Ok(_)) => {}
                error => return error,
            }
        }
    }
}

/// The names of one run.
#[derive(Debug)]
enum Run<'n> {
    File(BufReader<Part<'n>>),
    Memory(std::slice::Iter<'n, Box<str>>),
}

impl Run<'_> {
    fn next(&mut self) -> io::Result<Option<String>> {
        match self {
            Self::Memory(names) => Ok(names.next().map(|name| name.to_string())),
            Self::File(names) => {
                if names.fill_buf()?.is_empty() {
                    return Ok(None);
                }
                let mut length = [0; size_of::<usize>()];
                names.read_exact(&mut length)?;
                let mut name = vec![0; usize::from_ne_bytes(length)];
                names.read_exact(&mut name)?;
                String::from_utf8(name).map(Some).map_err(io::Error::other)
            }
        }
    }
}

/// A part of a file, so that several can be read side by side.
#[derive(Debug)]
struct Part<'n> {
    file: &'n File,
    // at <= end
    at: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let length = into.len().min(left);
        let read = self.file.read_at(&mut into[..length], self.at)?;
        if read == 0 && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: impl IntoIterator<Item = String>) -> SortedNames {
        let mut sorter = NameSorter::default();
        names.into_iter().for_each(|name| sorter.push(&name).expect("writable"));
        sorter.finish().expect("writable")
    }

    fn all(names: impl Iterator<Item = Item>) -> Vec<String> {
        names.map(|name| name.expect("readable")).collect()
    }

    fn texts(texts: &[&str]) -> impl Iterator<Item = String> {
        texts.iter().map(|text| (*text).to_owned())
    }

    #[test]
    fn names_are_sorted_and_can_be_read_several_times() {
        let names = sorted(texts(&["b", "", "a", "b\n", "b", "ä"]));
        assert_eq!(names.count(), 6);
        for _ in 0..2 {
            assert_eq!(
                all(names.with_repeats().expect("readable")),
                ["", "a", "b", "b", "b\n", "ä"]
            );
            assert_eq!(all(names.iter().expect("readable")), ["", "a", "b", "b\n", "ä"]);
        }
        assert!(all(sorted([]).iter().expect("readable")).is_empty());
    }

    #[test]
    fn a_difference_has_each_name_once() {
        let difference = |left: &[&str], right: &[&str]| {
            let (left, right) = (sorted(texts(left)), sorted(texts(right)));
            all(left.without(&right).expect("readable"))
        };
        assert_eq!(
            difference(&["a", "b", "b", "c", "d"], &["b", "c", "c", "x"]),
            ["a", "d"]
        );
        assert_eq!(difference(&["a", "b", "b"], &[]), ["a", "b"]);
        assert!(difference(&["a"], &["", "a"]).is_empty());
    }

    #[test]
    fn more_names_than_one_run_holds_are_merged() {
        const MANY: usize = 150_000;
        // Each name twice, far from each other, and in no order: 7919 is a prime.
        let name = |at: usize| format!("{:064}", at * 7919 % MANY);
        let names = sorted((0..2 * MANY).map(name));
        assert!(names.ends.len() > 20, "{}", names.ends.len());
        let expected = || (0..MANY).map(|at| format!("{at:064}"));
        assert!(
            names
                .iter()
                .expect("readable")
                .map(|name| name.expect("readable"))
                .eq(expected())
        );
        let odd = sorted(expected().skip(1).step_by(2));
        let even = names.without(&odd).expect("readable");
        assert!(even.map(|name| name.expect("readable")).eq(expected().step_by(2)));
        assert_eq!(names.with_repeats().expect("readable").count(), 2 * MANY);
    }
}
