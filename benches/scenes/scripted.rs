//! The scripted upstream of the tests.

#[path = "../../tests/support/query.rs"]
pub(crate) mod query;
#[path = "../../tests/support/records.rs"]
pub(crate) mod records;
#[path = "../../tests/support/rules.rs"]
pub(crate) mod rules;
#[path = "../../tests/support/script.rs"]
pub(crate) mod script;
#[path = "../../tests/support/upstream.rs"]
pub(crate) mod upstream;
#[path = "../../tests/support/wait.rs"]
pub(crate) mod wait;
