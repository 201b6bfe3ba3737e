//! The plugin's log. It is kept with the run, also with one that fails.
//!
//! Functions take a finished message; the macros of the same names format one and take fields before it:
//!
//! ```no_run
//! use bulkhead_plugin::log;
//!
//! let (customer, score) = ("c-9", 0.93);
//! log::info("started");
//! log::warn!(customer, score = score * 100.0; "flagged {customer}");
//! ```

use crate::port;

#[doc(inline)]
pub use crate::{
    __log_debug as debug, __log_error as error, __log_info as info, __log_trace as trace, __log_warn as warn,
};

/// How loud a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Finest.
    Trace,
    /// For the plugin's author.
    Debug,
    /// Ordinary.
    Info,
    /// Unusual.
    Warn,
    /// Wrong.
    Error,
}

/// Writes a line with fields. The functions and macros of this module end here.
pub fn write(level: Level, message: &str, fields: &[(String, String)]) {
    port::log(level, message, fields);
}

/// Writes a line for tracing.
pub fn trace(message: impl AsRef<str>) {
    write(Level::Trace, message.as_ref(), &[]);
}

/// Writes a line for the plugin's author.
pub fn debug(message: impl AsRef<str>) {
    write(Level::Debug, message.as_ref(), &[]);
}

/// Writes an ordinary line.
pub fn info(message: impl AsRef<str>) {
    write(Level::Info, message.as_ref(), &[]);
}

/// Writes a line about something unusual.
pub fn warn(message: impl AsRef<str>) {
    write(Level::Warn, message.as_ref(), &[]);
}

/// Writes a line about something wrong.
pub fn error(message: impl AsRef<str>) {
    write(Level::Error, message.as_ref(), &[]);
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log_write {
    ($level:ident; $($name:ident $(= $value:expr)?),+ $(,)?; $($format:tt)+) => {
        $crate::log::write(
            $crate::log::Level::$level,
            &::std::format!($($format)+),
            &[$($crate::__log_field!($name $(= $value)?)),+],
        )
    };
    ($level:ident; $($format:tt)+) => {
        $crate::log::write($crate::log::Level::$level, &::std::format!($($format)+), &[])
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log_field {
    ($name:ident = $value:expr) => {
        (::std::string::String::from(::core::stringify!($name)), ::std::string::ToString::to_string(&$value))
    };
    ($name:ident) => {
        $crate::__log_field!($name = $name)
    };
}

/// Writes a line for tracing: `trace!(field = value, ...; "format {}", ...)`.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_trace { ($($tokens:tt)+) => { $crate::__log_write!(Trace; $($tokens)+) }; }

/// Writes a line for the plugin's author: `debug!(field = value, ...; "format {}", ...)`.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug { ($($tokens:tt)+) => { $crate::__log_write!(Debug; $($tokens)+) }; }

/// Writes an ordinary line: `info!(field = value, ...; "format {}", ...)`.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info { ($($tokens:tt)+) => { $crate::__log_write!(Info; $($tokens)+) }; }

/// Writes a line about something unusual: `warn!(field = value, ...; "format {}", ...)`.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn { ($($tokens:tt)+) => { $crate::__log_write!(Warn; $($tokens)+) }; }

/// Writes a line about something wrong: `error!(field = value, ...; "format {}", ...)`.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error { ($($tokens:tt)+) => { $crate::__log_write!(Error; $($tokens)+) }; }
