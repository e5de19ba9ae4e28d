//! The decisions: what to answer, from where, to whom.
