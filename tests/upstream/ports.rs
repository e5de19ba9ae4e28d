//! Few source ports, and neither they nor ids to be guessed.
