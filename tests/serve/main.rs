//! Listening, TCP, start, reload and stop, seen from outside.

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod reload;
mod start;
mod stop;
mod stream;
