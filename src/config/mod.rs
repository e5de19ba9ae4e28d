//! Text to plan: the configuration file, its presets and its errors.
//!
//! Text is read into `File` (as typed, with places), `File` is built into a [`Plan`] (valid by construction). Every
//! problem on the way is collected, so that a person mends them all in one go. Nothing here opens a socket, reads the
//! network or knows the time; zone files, hosts files and certificates are read by those who use them.

mod address;
mod error;
mod plan;

pub use address::{Address, AddressError, Endpoint};
pub use error::{Color, Problems};
pub use plan::{
    Aaaa, Access, AdminAccess, Boot, CachePolicy, FixedServer, Group, GroupIndex, Guard, Health, Listen, Live,
    LocalZone, LogFormat, LogLevel, Need, NetworkPath, OnPublic, Plan, Policy, Probe, Rebind, Rule, Sandbox, Server,
    ServerAddress, Share, SpecialNames, StreamLimits, Transport, WhenDown, Workers, ZoneData, ZoneEntry,
};
