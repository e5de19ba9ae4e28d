//! Other servers: groups, selection, exchanges and health.
