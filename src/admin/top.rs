//! The document of `/api/v1/top`: the names asked for most, the clients that ask most, and the names that fail most.
//!
//! The same types serve the daemon, the status page and `tidegate top`. Fields are only ever added.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The document of `/api/v1/top`. Numbers are estimates from a sample while there are many queries, and exact otherwise.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Top {
    /// The seconds that it looks back on; at most 300.
    pub window: u64,
    /// Queries in that time.
    pub queries: u64,
    /// How many of them were looked at; fewer than `queries` where they are estimated.
    pub sampled: u64,
    /// The names that were asked for most, whatever the type, the hottest first.
    pub names: Vec<TopName>,
    /// The clients that asked most, the busiest first.
    pub clients: Vec<TopClient>,
    /// The names whose queries ended with neither NOERROR nor NXDOMAIN most often; refused clients are not among them.
    pub failures: Vec<TopFailure>,
}

/// A name that is asked for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TopName {
    /// The name, absolute and in lower case.
    pub name: String,
    /// Queries for it.
    pub queries: u64,
    /// Its share of all queries, from 0 to 1.
    pub share: f64,
}

/// A client that asks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TopClient {
    /// Its address.
    pub client: String,
    /// Its queries.
    pub queries: u64,
    /// Its share of all queries, from 0 to 1.
    pub share: f64,
}

/// A name whose queries fail.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TopFailure {
    /// The name, absolute and in lower case.
    pub name: String,
    /// The response code.
    pub rcode: String,
    /// The extended error's meaning (RFC 8914); null where there is none.
    pub reason: Option<String>,
    /// Queries that ended so.
    pub queries: u64,
}
