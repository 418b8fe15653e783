//! What the command line prints. Whoever reads it may stop reading before its end: that is no failure.

use std::{fmt::Arguments, io::Write};

/// A line for the user.
macro_rules! say {
    ($($text:tt)*) => { $crate::say::line(format_args!($($text)*)) };
}

pub(crate) use say;

pub fn line(text: Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
