//! What is answered here: local zones, hosts and special-use names.
