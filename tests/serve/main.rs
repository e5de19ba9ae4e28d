//! Listening, TCP, start, reload and stop, seen from outside.

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod balance;
mod dnstap;
mod durations;
mod encrypted;
mod limits;
mod log;
mod notify;
mod otlp;
mod query_log;
mod refused;
mod reload;
mod restart;
mod sandbox;
mod shipped;
mod start;
mod stop;
mod stream;
mod succession;
