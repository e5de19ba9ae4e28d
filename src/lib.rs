//! tidegate: the DNS gateway between an on-premises network and AWS private endpoints.
pub mod admin;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod metrics;
pub mod net;
pub mod networks;
pub mod route;
pub mod serve;
pub mod upstream;
pub mod wire;
pub mod zones;
