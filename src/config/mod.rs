//! Text to plan: the configuration file, its presets and its errors.
