//! Start, reload, stop.
