//! Whether a server is a primary, by its reply to `ROLE`.

use std::io;

use redis::{RedisError, RedisResult, Value, cmd};

use crate::store::error_reply::without_arguments;
use crate::store::redis::transport::Connection;

/// Reads the reply to ROLE.
pub(super) fn is_primary(reply: &Value) -> Result<(), String> {
    match reply {
        Value::Array(parts) => match parts.first() {
            Some(Value::BulkString(role)) if role == b"master" => Ok(()),
            Some(Value::BulkString(role)) => Err(format!("its role is {}", String::from_utf8_lossy(role))),
            _ => Err("its reply to ROLE cannot be read".to_owned()),
        },
        Value::ServerError(error) => Err(without_arguments(&RedisError::from(error.clone()).to_string()).to_owned()),
        _ => Err("its reply to ROLE cannot be read".to_owned()),
    }
}

/// Asks a new connection whether its server is a primary.
pub(in crate::store::redis) async fn require_primary(connection: &mut Connection) -> RedisResult<()> {
    let role: Value = cmd("ROLE").query_async(connection).await?;
    is_primary(&role).map_err(|problem| io::Error::other(format!("the server is not a primary: {problem}")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_says_so_is_a_primary() {
        let role = |role: &str| Value::Array(vec![Value::BulkString(role.into()), Value::Int(0)]);
        assert_eq!(is_primary(&role("master")), Ok(()));
        for reply in [
            role("slave"),
            role("sentinel"),
            Value::Array(Vec::new()),
            Value::Nil,
            Value::Okay,
        ] {
            assert!(is_primary(&reply).is_err(), "{reply:?}");
        }
    }
}
