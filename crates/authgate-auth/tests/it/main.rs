//! Tests of authgate-auth alone.

mod fuzzing;
