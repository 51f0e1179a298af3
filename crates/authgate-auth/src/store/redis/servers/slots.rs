//! The slots of a Redis Cluster: which one a key is in, and which server a node says has it.

use redis::Value;
use redis::cluster::NodeAddress;

use super::node::{Node, SlotRange};

/// The remainder of CRC-16/XMODEM for each byte.
const CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The slot of a key: of its hash tag `{…}`, if it has one.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}').filter(|close| *close > 0)?;
        Some(&rest[..close])
    });
    let crc = tag.unwrap_or(key).iter().fold(0_u16, |crc, byte| {
        (crc << 8) ^ CRC[usize::from(crc.to_be_bytes()[0] ^ byte)]
    });
    crc % 16384
}

/// Reads the reply to CLUSTER SLOTS: ranges, each with its primary. `asked` is the server that has answered.
pub(super) fn ranges(reply: &Value, asked: &NodeAddress) -> Option<Vec<SlotRange>> {
    let Value::Array(entries) = reply else { return None };
    let range = |entry: &Value| {
        let Value::Array(parts) = entry else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = parts.as_slice() else {
            return None;
        };
        let [host, Value::Int(port), ..] = primary.as_slice() else {
            return None;
        };
        // No name means the one that was asked; `?` means an unknown one.
        let host = match text(host) {
            None | Some("") => asked.host(),
            Some("?") => return None,
            Some(host) => host,
        };
        Some(SlotRange {
            first: u16::try_from(*first).ok()?,
            last: u16::try_from(*last).ok()?,
            node: Node::At(NodeAddress::new(host, u16::try_from(*port).ok()?)),
        })
    };
    Some(entries.iter().filter_map(range).collect())
}

/// Reads the reply to CLUSTER SHARDS (Redis 7): primaries without slots. Keys of a slot that is being moved may be written to them already.
pub(super) fn primaries_without_slots(reply: &Value, asked: &NodeAddress, tls: bool) -> Vec<Node> {
    let Value::Array(shards) = reply else { return Vec::new() };
    let mut found = Vec::new();
    for shard in shards {
        let has_slots = matches!(member(shard, "slots"), Some(Value::Array(slots)) if !slots.is_empty());
        let (false, Some(Value::Array(nodes))) = (has_slots, member(shard, "nodes")) else {
            continue;
        };
        found.extend(nodes.iter().filter_map(|node| {
            let is = |name, expected| member(node, name).and_then(text) == Some(expected);
            if !is("role", "master") || !is("health", "online") {
                return None;
            }
            let Some(Value::Int(port)) = member(node, if tls { "tls-port" } else { "port" }) else {
                return None;
            };
            let host = member(node, "endpoint").and_then(text).filter(|host| !host.is_empty());
            let address = NodeAddress::new(host.unwrap_or(asked.host()), u16::try_from(*port).ok()?);
            (host != Some("?")).then_some(Node::At(address))
        }));
    }
    found
}

/// The address in an error `MOVED slot host:port` or `ASK slot host:port`. No host means the one that was asked.
pub(super) fn redirect(details: Option<&str>, asked: Option<&NodeAddress>) -> Option<Node> {
    let (host, port) = details?.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if host.is_empty() { asked?.host() } else { host };
    Some(Node::At(NodeAddress::new(host, port.parse().ok()?)))
}

/// A member of a map. RESP2 has lists of names and values in its place.
fn member<'v>(map: &'v Value, name: &str) -> Option<&'v Value> {
    match map {
        Value::Map(members) => members
            .iter()
            .find(|(key, _)| text(key) == Some(name))
            .map(|(_, value)| value),
        Value::Array(members) => {
            let mut pairs = members.chunks_exact(2);
            pairs.find(|pair| text(&pair[0]) == Some(name)).map(|pair| &pair[1])
        }
        _ => None,
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // 0x31C3 is the check value in the specification of Redis Cluster.
        for (key, expected) in [
            ("123456789", 0x31C3),
            ("foo", 12182),
            ("bar", 5061),
            ("{foo}x", 12182),
            ("x{foo}y{bar}", 12182),
            ("foo{}{bar}", 8363),
            ("", 0),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn at(host: &str, port: u16) -> Node {
        Node::At(NodeAddress::new(host, port))
    }

    #[test]
    fn ranges_name_the_primary_of_each_slot() {
        let entry = |first, last, host: Value| {
            let primary = Value::Array(vec![host, Value::Int(7000), bulk("id")]);
            let replica = Value::Array(vec![bulk("10.0.0.9"), Value::Int(7009), bulk("id")]);
            Value::Array(vec![Value::Int(first), Value::Int(last), primary, replica])
        };
        let reply = Value::Array(vec![
            entry(0, 99, bulk("10.0.0.1")),
            entry(100, 199, Value::Nil),
            entry(200, 299, bulk("")),
            entry(300, 399, bulk("?")),
            entry(0, 70_000, bulk("10.0.0.1")),
            Value::Nil,
        ]);
        let ranges = ranges(&reply, &NodeAddress::new("asked", 1)).expect("a list");
        let read: Vec<_> = ranges
            .iter()
            .map(|range| (range.first, range.last, range.node.clone()))
            .collect();
        assert_eq!(
            read,
            [
                (0, 99, at("10.0.0.1", 7000)),
                (100, 199, at("asked", 7000)),
                (200, 299, at("asked", 7000))
            ]
        );
        assert!(super::ranges(&Value::Nil, &NodeAddress::new("asked", 1)).is_none());
    }

    #[test]
    fn primaries_without_slots_are_found_in_both_protocols() {
        let node = |role: &str, health: &str, port| {
            vec![
                (bulk("id"), bulk("x")),
                (bulk("port"), Value::Int(port)),
                (bulk("endpoint"), bulk("10.0.0.1")),
                (bulk("role"), bulk(role)),
                (bulk("health"), bulk(health)),
            ]
        };
        let flat = |pairs: Vec<(Value, Value)>| Value::Array(pairs.into_iter().flat_map(|(k, v)| [k, v]).collect());
        let shard = |slots: Vec<Value>, node: Value| {
            vec![
                (bulk("slots"), Value::Array(slots)),
                (bulk("nodes"), Value::Array(vec![node])),
            ]
        };
        let reply = Value::Array(vec![
            Value::Map(shard(
                vec![Value::Int(0), Value::Int(5)],
                Value::Map(node("master", "online", 1)),
            )),
            Value::Map(shard(vec![], Value::Map(node("master", "online", 2)))),
            flat(shard(vec![], flat(node("master", "online", 3)))),
            flat(shard(vec![], flat(node("replica", "online", 4)))),
            flat(shard(vec![], flat(node("master", "fail", 5)))),
        ]);
        let asked = NodeAddress::new("asked", 1);
        let found = primaries_without_slots(&reply, &asked, false);
        assert_eq!(found, [at("10.0.0.1", 2), at("10.0.0.1", 3)]);
        assert!(primaries_without_slots(&reply, &asked, true).is_empty());
    }

    #[test]
    fn redirects_are_read() {
        let asked = NodeAddress::new("asked", 1);
        for (details, expected) in [
            (Some("3999 127.0.0.1:6381"), Some(at("127.0.0.1", 6381))),
            (Some("3999 [::1]:6381"), Some(at("::1", 6381))),
            (Some("3999 :6381"), Some(at("asked", 6381))),
            (Some("3999 host:x"), None),
            (Some("3999"), None),
            (None, None),
        ] {
            assert_eq!(redirect(details, Some(&asked)), expected, "{details:?}");
        }
    }
}
