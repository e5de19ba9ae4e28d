//! What may be stored and for how long.
