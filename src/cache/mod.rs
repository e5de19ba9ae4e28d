//! Whole answers as wire bytes, bounded in bytes.
