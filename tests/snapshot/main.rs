//! The cache as a file: what is accepted from it, and what a restart finds.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod format;
mod hostile;
mod restart;
mod rules;
mod transfer;
