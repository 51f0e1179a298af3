//! Where a string comes from, in place of the string itself: `{ env }` or `{ file }`.

use super::types::Text;
use super::{Key, Table};

pub(crate) static TABLE: Table = Table::new(
    "A string that is not written in the file, in place of any string. It is read at the start and at each reload, and never shown.",
    &[&ENV, &FILE, &DEFAULT],
);

pub(crate) static ENV: Key<Text> = Key::new("env", Text("the name of an environment variable"))
    .example("password = { env = \"REDIS_PASSWORD\" }")
    .text("The environment variable with the string.")
    .errors(&["The variable is not set, and there is no `default`."]);

pub(crate) static FILE: Key<Text> = Key::new("file", Text("the path of a file"))
    .example("password = { file = \"redis.password\" }")
    .text("The file with the string. A newline at its end is not part of the string, except for a secret of bytes: a seal, or the secret of a key.")
    .errors(&["The file cannot be read.", "`env` is written too."]);

pub(crate) static DEFAULT: Key<Text> = Key::new("default", Text("a string"))
    .example("level = { env = \"LOG_LEVEL\", default = \"info\" }")
    .text("The string if the environment variable of `env` is not set.")
    .errors(&["`env` is missing."]);
