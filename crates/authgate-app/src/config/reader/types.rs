//! The types of values.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use authgate_core::secret::Secret;
use bytesize::ByteSize;
use http::HeaderName;

use super::Item;
use super::declaration::{Form, MAX_DURATION, Shape};
use super::key::{Shaped, Type};
use super::written::{duration, quote, size};

/// A type without a constant default.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Never {}

/// `true` or `false`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag;

impl Shaped for Flag {
    fn shape(&self) -> Shape {
        Shape::Flag
    }
}

impl Type for Flag {
    type Value = bool;
    type Default = bool;

    fn read(&self, item: &Item<'_>) -> Option<bool> {
        item.flag()
    }

    fn value(&self, default: bool) -> bool {
        default
    }

    fn written(&self, default: bool) -> String {
        default.to_string()
    }
}

/// A whole number within bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

impl Shaped for Count {
    fn shape(&self) -> Shape {
        Shape::Count {
            min: self.min,
            max: self.max,
        }
    }
}

impl Type for Count {
    type Value = usize;
    type Default = usize;

    fn read(&self, item: &Item<'_>) -> Option<usize> {
        usize::try_from(item.count(self.min..=self.max)?).ok()
    }

    fn value(&self, default: usize) -> usize {
        default
    }

    fn written(&self, default: usize) -> String {
        default.to_string()
    }
}

/// A whole number that fits into 32 bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count32 {
    pub(crate) min: u32,
    pub(crate) max: u32,
}

impl Shaped for Count32 {
    fn shape(&self) -> Shape {
        Shape::Count {
            min: self.min.into(),
            max: self.max.into(),
        }
    }
}

impl Type for Count32 {
    type Value = u32;
    type Default = u32;

    fn read(&self, item: &Item<'_>) -> Option<u32> {
        u32::try_from(item.count(self.min.into()..=self.max.into())?).ok()
    }

    fn value(&self, default: u32) -> u32 {
        default
    }

    fn written(&self, default: u32) -> String {
        default.to_string()
    }
}

/// A duration within bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
    /// The reason of the bounds, if they are narrow.
    pub(crate) because: &'static str,
}

impl Span {
    /// Any duration.
    pub(crate) const ANY: Self = Self::between(Duration::ZERO, MAX_DURATION, "");
    /// A duration above zero, because no operation meets a deadline of zero.
    pub(crate) const ABOVE_ZERO: Self = Self::between(Duration::from_millis(1), MAX_DURATION, "");

    pub(crate) const fn between(min: Duration, max: Duration, because: &'static str) -> Self {
        Self { min, max, because }
    }
}

impl Shaped for Span {
    fn shape(&self) -> Shape {
        Shape::Duration {
            min: self.min,
            max: self.max,
        }
    }
}

impl Type for Span {
    type Value = Duration;
    type Default = Duration;

    fn read(&self, item: &Item<'_>) -> Option<Duration> {
        item.duration(self)
    }

    fn value(&self, default: Duration) -> Duration {
        default
    }

    fn written(&self, default: Duration) -> String {
        quote(&duration(default))
    }
}

/// A duration above zero, or `"unlimited"`: `None`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpanOrUnlimited;

/// The word for no limit.
pub(crate) const UNLIMITED: &str = "unlimited";

impl Shaped for SpanOrUnlimited {
    fn shape(&self) -> Shape {
        Span::ABOVE_ZERO.shape().or(Shape::Words(vec![UNLIMITED]))
    }
}

impl Type for SpanOrUnlimited {
    type Value = Option<Duration>;
    type Default = Option<Duration>;

    fn read(&self, item: &Item<'_>) -> Option<Self::Value> {
        item.duration_or_unlimited()
    }

    fn value(&self, default: Self::Default) -> Self::Value {
        default
    }

    fn written(&self, default: Self::Default) -> String {
        default.map_or(quote(UNLIMITED), |limit| quote(&duration(limit)))
    }
}

/// A size in bytes within bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) min: ByteSize,
    pub(crate) max: ByteSize,
}

impl Shaped for Size {
    fn shape(&self) -> Shape {
        Shape::Size {
            min: self.min.as_u64(),
            max: self.max.as_u64(),
        }
    }
}

impl Type for Size {
    type Value = usize;
    type Default = usize;

    fn read(&self, item: &Item<'_>) -> Option<usize> {
        item.size(self.min, self.max)
    }

    fn value(&self, default: usize) -> usize {
        default
    }

    fn written(&self, default: usize) -> String {
        quote(&size(default as u64))
    }
}

/// A size in bytes, or `"unlimited"`: `None`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SizeOrUnlimited;

impl Shaped for SizeOrUnlimited {
    fn shape(&self) -> Shape {
        let any = Shape::Size {
            min: 0,
            max: u64::MAX - 1,
        };
        any.or(Shape::Words(vec![UNLIMITED]))
    }
}

impl Type for SizeOrUnlimited {
    type Value = Option<u64>;
    type Default = Option<u64>;

    fn read(&self, item: &Item<'_>) -> Option<Self::Value> {
        item.size_or_unlimited()
    }

    fn value(&self, default: Self::Default) -> Self::Value {
        default
    }

    fn written(&self, default: Self::Default) -> String {
        default.map_or(quote(UNLIMITED), |limit| quote(&size(limit)))
    }
}

/// One of some words, each with its value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words<V: 'static>(pub(crate) &'static [(&'static str, V)]);

impl<V: Copy + Send + Sync + 'static> Shaped for Words<V> {
    fn shape(&self) -> Shape {
        Shape::Words(self.0.iter().map(|(word, _)| *word).collect())
    }
}

impl<V: Copy + Send + Sync + PartialEq + Debug + 'static> Type for Words<V> {
    type Value = V;
    type Default = V;

    fn read(&self, item: &Item<'_>) -> Option<V> {
        item.text()?.choice(self.0)
    }

    fn value(&self, default: V) -> V {
        default
    }

    fn written(&self, default: V) -> String {
        let word = self.0.iter().find(|(_, value)| *value == default);
        quote(word.map_or("", |(word, _)| word))
    }
}

/// A string that is not empty. The text says what it is, as in `the name of a column`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text(pub(crate) &'static str);

impl Shaped for Text {
    fn shape(&self) -> Shape {
        Shape::Text(Form::matching(self.0, "."))
    }
}

impl Type for Text {
    type Value = String;
    type Default = &'static str;

    fn read(&self, item: &Item<'_>) -> Option<String> {
        item.non_empty_text()
    }

    fn value(&self, default: Self::Default) -> String {
        default.to_owned()
    }

    fn written(&self, default: Self::Default) -> String {
        quote(default)
    }
}

/// A string that the code which takes it reads, with a default. The text says what it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Special(pub(crate) Form);

impl Shaped for Special {
    fn shape(&self) -> Shape {
        Shape::Text(self.0)
    }
}

impl Type for Special {
    type Value = String;
    type Default = &'static str;

    fn read(&self, item: &Item<'_>) -> Option<String> {
        Some(item.text()?.into_string())
    }

    fn value(&self, default: Self::Default) -> String {
        default.to_owned()
    }

    fn written(&self, default: Self::Default) -> String {
        quote(default)
    }
}

/// A type without defaults.
macro_rules! without_default {
    ($type:ty, $value:ty, $shape:expr, $read:ident) => {
        impl Shaped for $type {
            fn shape(&self) -> Shape {
                $shape
            }
        }

        impl Type for $type {
            type Value = $value;
            type Default = Never;

            fn read(&self, item: &Item<'_>) -> Option<$value> {
                item.$read()
            }

            fn value(&self, default: Never) -> $value {
                match default {}
            }

            fn written(&self, default: Never) -> String {
                match default {}
            }
        }
    };
}

/// A secret that is text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SecretText;
without_default!(SecretText, Secret<String>, Shape::Secret, secret_text);

/// A secret, byte for byte.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SecretBytes;
without_default!(SecretBytes, Secret<Vec<u8>>, Shape::Secret, secret_bytes);

/// The path of a file whose content belongs to the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File;
without_default!(
    File,
    PathBuf,
    Shape::Text(Form::matching("the path of a file", ".")),
    path
);

/// A path whose content does not belong to the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Location;
without_default!(Location, PathBuf, Shape::Text(Form::matching("a path", ".")), location);

/// The name of a header that has no other meaning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header;

impl Shaped for Header {
    fn shape(&self) -> Shape {
        Shape::Text(Form::matching("the name of a header", "^[A-Za-z0-9-]+$"))
    }
}

impl Type for Header {
    type Value = HeaderName;
    type Default = &'static str;

    fn read(&self, item: &Item<'_>) -> Option<HeaderName> {
        item.header_name()
    }

    fn value(&self, default: Self::Default) -> HeaderName {
        HeaderName::from_bytes(default.as_bytes()).expect("a default is a name")
    }

    fn written(&self, default: Self::Default) -> String {
        quote(default)
    }
}

/// An IP address and a port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address;
without_default!(Address, SocketAddr, Shape::text("an IP address and a port"), address);
