//! What clients get for what they ask: the answers that are promised, case by case.

#[path = "../support/mod.rs"]
mod support;

mod caching;
mod cookies;
mod edns;
mod failures;
mod forgery;
mod negatives;
mod odd_queries;
mod refusals;
mod special_names;
mod truncation;
