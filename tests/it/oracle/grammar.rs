//! Odd JSON: objects as lists of members, whose names and values are texts, so that they can say what no library would write.

use fastrand::Rng;
use serde_json::Value;

/// One of several.
pub fn one<'a, T: ?Sized>(rng: &mut Rng, of: &[&'a T]) -> &'a T {
    of[rng.usize(..of.len())]
}

/// Whether it happens, once in so many times.
pub fn rarely(rng: &mut Rng, once_in: u32) -> bool {
    rng.u32(..once_in) == 0
}

/// An object as it will be written: names and values are JSON texts.
#[derive(Debug, Clone, Default)]
pub struct Object(pub Vec<(String, String)>);

impl Object {
    pub fn of(members: &Value) -> Self {
        let members = members.as_object().expect("an object");
        Self(
            members
                .iter()
                .map(|(name, value)| (format!("{name:?}"), value.to_string()))
                .collect(),
        )
    }

    fn named<'o>(&'o self, name: &str) -> impl Iterator<Item = usize> + use<'o> {
        let name = name.to_owned();
        let is = move |text: &str| serde_json::from_str::<String>(text).is_ok_and(|own| own == name);
        (0..self.0.len()).filter(move |at| is(&self.0[*at].0))
    }

    pub fn set(&mut self, name: &str, raw: String) {
        self.remove(name);
        self.add(name, raw);
    }

    pub fn add(&mut self, name: &str, raw: String) {
        self.0.push((format!("{name:?}"), raw));
    }

    pub fn remove(&mut self, name: &str) {
        let gone: Vec<usize> = self.named(name).collect();
        for at in gone.into_iter().rev() {
            self.0.remove(at);
        }
    }

    /// The text of a member's value.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.named(name).last().map(|at| self.0[at].1.as_str())
    }

    /// Two members have the same name once escapes are read.
    pub fn has_doubles(&self) -> bool {
        let mut names: Vec<String> = self
            .0
            .iter()
            .filter_map(|(name, _)| serde_json::from_str(name).ok())
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        names.len() < count
    }

    pub fn text(&self) -> String {
        let members: Vec<String> = self.0.iter().map(|(name, raw)| format!("{name}:{raw}")).collect();
        format!("{{{}}}", members.join(","))
    }
}

/// Values of every JSON type, and some of none.
const ODD: [&str; 92] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1",
    "7",
    "8",
    "42",
    "43",
    "44",
    "9",
    "42.0",
    "43.0",
    "42.5",
    "4.2e1",
    "1e2",
    "-42",
    "0.0",
    "-0.0",
    "1e300",
    "-1e300",
    "1e400",
    "1e-400",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "100000000000000000000000000000",
    "NaN",
    "Infinity",
    "-Infinity",
    "01",
    "1.",
    ".5",
    "+1",
    "0x10",
    "1_0",
    "'a'",
    r#""""#,
    r#"" ""#,
    r#""0""#,
    r#""1""#,
    r#""42""#,
    r#""43""#,
    r#""44""#,
    r#""9""#,
    r#"" 42 ""#,
    r#""+42""#,
    r#""-42""#,
    r#""0042""#,
    r#""4_2""#,
    r#""42.0""#,
    "\"４２\"",
    "\"٤٢\"",
    r#""\u00342""#,
    r#""42\u0000""#,
    r#""42\n""#,
    r#""\t42""#,
    r#""\u00a042""#,
    r#""\u200b42""#,
    r#""42\u007f""#,
    r#""true""#,
    r#""ada""#,
    r#""ADA""#,
    r#""ben""#,
    "\"zoë\"",
    r#""zo\u00eb""#,
    r#""zoe\u0308""#,
    r#""\ud800""#,
    r#""\ud83d\ude00""#,
    r#""\u2028""#,
    r#""a,b""#,
    r#""a%b""#,
    r#""a\"b""#,
    r#""a b""#,
    "\"a\tb\"",
    r#""\x41""#,
    "[]",
    "[42]",
    r#"["42"]"#,
    "[null]",
    r#"["access"]"#,
    "{}",
    r#"{"id":42}"#,
    r#"{"a":1,"b":[{"c":null}]}"#,
    "[[[[[[[[[[1]]]]]]]]]]",
    "[1,]",
    "\u{feff}1",
];

/// How many values [`nth`] knows.
pub const VALUES: usize = ODD.len() + 9;

/// Every value in its turn; behind the list are those that are long.
pub fn nth(at: usize) -> String {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    match at.checked_sub(ODD.len()) {
        None => ODD[at].to_owned(),
        Some(0) => format!("\"{}\"", "x".repeat(255)),
        Some(1) => format!("\"{}\"", "x".repeat(256)),
        Some(2) => nested(30),
        Some(3) => nested(40),
        Some(4) => "9".repeat(300),
        Some(5) => "9".repeat(320),
        // Python reads no more than 4300 digits.
        Some(6) => format!("\"-{}\"", "9".repeat(4400)),
        Some(7) => format!("\"{}7\"", "0".repeat(4400)),
        Some(_) => r#"{"a":1,"\u0061":2}"#.to_owned(),
    }
}

/// Any value, the long ones rarely.
pub fn odd(rng: &mut Rng) -> String {
    if rarely(rng, 20) {
        nth(rng.usize(ODD.len()..VALUES))
    } else {
        one(rng, &ODD).to_owned()
    }
}

/// Seconds that no clock is near to, whatever the leeway.
const OFFSETS: [i64; 14] = [
    -2_000_000_000,
    -100_000,
    -3600,
    -60,
    -36,
    -24,
    -6,
    6,
    24,
    36,
    60,
    3600,
    100_000,
    2_000_000_000,
];

/// A time, or something like one.
pub fn time(rng: &mut Rng, now: i64) -> String {
    let at = now + OFFSETS[rng.usize(..OFFSETS.len())];
    match rng.u32(..24) {
        0..=6 => at.to_string(),
        7 => format!("{at}.5"),
        8 => format!("{at}.999999999999"),
        9 => format!("{at}000e-3"),
        10 => format!("{}.{}e9", at / 1_000_000_000, (at % 1_000_000_000).abs()),
        11 => format!("\"{at}\""),
        12 => format!("\" {at}\\n\""),
        13 => format!("\"+{at}\""),
        14 => format!("\"{}_{:03}\"", at / 1000, (at % 1000).abs()),
        15 => format!("\"{at}.0\""),
        16 => format!("{at}000"),
        17 => format!("-{}", at.abs()),
        18 => one(
            rng,
            &[
                "253402300799",
                "253402300800",
                "253402300799.5",
                "-62135596801",
                "-1e20",
            ],
        )
        .to_owned(),
        19 => format!(
            "\"{}{at}\"",
            one(
                rng,
                &["\\u00a0", "\\u001f", "\\u000b", "\\u2003", "0", "-", "\\u0000", "--"]
            )
        ),
        20 => one(
            rng,
            &[
                "\"١٢٣\"",
                "\"１７\"",
                "\"1__0\"",
                "\"_1\"",
                "\"1_\"",
                "\"0x1f\"",
                "\"1e3\"",
                "\"-0\"",
            ],
        )
        .to_owned(),
        21 => format!("[{at}]"),
        _ => odd(rng),
    }
}
