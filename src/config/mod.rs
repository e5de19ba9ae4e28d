//! From text to plan: the configuration file, its presets and its errors.
//!
//! Text is read into `File` (as typed, with places), and `File` is built into a [`Plan`] (valid by construction). All
//! problems on the way are collected, so that a person can fix them in one go. Nothing here opens a socket, uses the
//! network or knows the time. Files with a single value and bundles of CA certificates are read here; zone files and
//! hosts files by their users.

mod address;
mod build;
mod changes;
mod defaults;
mod error;
mod expectations;
mod file;
mod group;
mod load;
mod plan;
mod presets;
mod reverse;
mod rule;
mod schema;
mod server;
mod source;
mod table;
mod units;

pub use address::{Address, AddressError, Endpoint};
pub(crate) use build::{behind_wildcards, is_host_address};
pub use defaults::{default_udp_payload, defaults};
pub use error::{Color, Problems};
pub use expectations::{Expectations, Expected, ExpectedCase, ExpectedVerdict};
pub use file::{CONTROL_SOCKET, EditError, MAX_SERVERS, group_table, is_configuration, set_servers};
pub use group::{
    Bundle, DNS_QUERY_PATH, FixedServer, GroupIndex, GroupPlan, HealthPlan, NamedServer, NetworkPath, Policy, Probe,
    Recursion, ServerAddress, ServerPlan, Share,
};
pub use load::{ServeFlags, admin_http, control_socket};
pub use plan::{
    Aaaa, AccessPlan, AdminAccess, Boot, CachePolicy, Certificate, ClientLimit, CookieSecret, Encryption, GuardPlan,
    HttpsListen, Listen, Live, LocalZone, LogFormat, LogLevel, LoggedQueries, Need, OnPublic, PerimeterRecord, Plan,
    QueryLogPolicy, Rebind, RulePlan, RuleSettings, Sandbox, SpecialNames, StreamLimits, WhenDown, Workers, WrittenAt,
    ZoneData, ZoneEntry,
};
pub use presets::{PRESETS, PUBLIC_ONLY, Preset, PresetDomain, Remedy, is_aws_name, preset, remedy};
pub use reverse::{private_reverse_zones, reverse_zones};
pub use schema::schema;
pub use server::ServerError;
pub use units::{UnitError, parse_duration};
