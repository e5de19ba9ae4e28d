//! What clients get for what they ask: the answers that are promised, case by case.

#[path = "../support/mod.rs"]
mod support;

mod caching;
mod chains;
mod cookies;
mod edns;
mod failures;
mod forgery;
mod letter_case;
mod lifetimes;
mod negatives;
mod odd_queries;
mod outages;
mod patience;
mod refusals;
mod relayed_errors;
mod remembered;
mod rotation;
mod sides;
mod special_names;
mod superseded;
mod truncation;
