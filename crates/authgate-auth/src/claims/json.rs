//! Strict JSON for tokens: bounded depth, and no duplicate members.
//!
//! RFC 7519, section 4, lets a reader refuse duplicate members or use the last one. An upstream may use another one than the gateway, so
//! duplicates are refused, at every depth.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Maximum nesting of objects and lists. Real claims have three or four levels.
const MAX_DEPTH: u8 = 32;

/// The input is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Parses all of `bytes` as one object.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Malformed> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Node { left: MAX_DEPTH }
        .deserialize(&mut reader)
        .map_err(|_| Malformed)?;
    reader.end().map_err(|_| Malformed)?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(Malformed),
    }
}

/// A value with at most this many levels.
#[derive(Clone, Copy)]
struct Node {
    left: u8,
}

impl Node {
    fn below<E: Error>(self) -> Result<Self, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Self { left }),
            None => Err(E::custom("nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(below)? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut members = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(below)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_read_as_serde_json_reads_them() {
        let text = r#" {"a": [1, -2, 3.5, 1e2, true, false, null, "\u00e9", {}], "b": {"c": 18446744073709551615}} "#;
        let expected: Map<String, Value> = serde_json::from_str(text).expect("good JSON");
        assert_eq!(object(text.as_bytes()), Ok(expected));
    }

    #[test]
    fn ambiguous_json_is_refused() {
        for bad in [
            &br#"{"a":1,"a":1}"#[..],
            br#"{"a":1,"\u0061":2}"#,
            br#"{"a":{"b":[{"c":1,"c":2}]}}"#,
            br#"{"a":NaN}"#,
            br#"{"a":Infinity}"#,
            br#"{"a":1e999}"#,
            br#"{"a":01}"#,
            br#"{"a":1,}"#,
            br#"{"a":"\ud800"}"#,
            b"{\"a\":\"\xff\"}",
            b"\xef\xbb\xbf{}",
            b"{\0\"\0a\0\"\0:\x001\0}\0",
            br#"{"a":1} {"#,
            br#"{"a":1}}"#,
            b"[]",
            b"5",
            b"null",
            b"",
        ] {
            assert_eq!(object(bad), Err(Malformed), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(object(nested(31).as_bytes()).is_ok());
        assert!(object(nested(32).as_bytes()).is_err());
        assert!(object(nested(100_000).as_bytes()).is_err());
    }
}
