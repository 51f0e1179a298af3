//! [`table!`](crate::table): constants, and the table of all of them.

/// Declares statics of one type, and a table that has all of them, in order: an entry that is used cannot be missing from the table.
///
/// ```
/// authgate_core::table! {
///     /// The first primes.
///     pub static PRIMES: u32;
///
///     TWO = 2;
///     THREE = 3;
/// }
/// assert_eq!(PRIMES, [&TWO, &THREE]);
/// ```
#[macro_export]
macro_rules! table {
    ($(#[$attribute:meta])* $visibility:vis static $table:ident: $entry:ty; $($(#[$entry_attribute:meta])* $name:ident = $value:expr;)+) => {
        $($(#[$entry_attribute])* $visibility static $name: $entry = $value;)+
        $(#[$attribute])*
        $visibility static $table: &[&$entry] = &[$(&$name),+];
    };
}
