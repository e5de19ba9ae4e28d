//! Counters that workers own, and their Prometheus text.
