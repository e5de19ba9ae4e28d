//! Listeners: bytes from clients and back. No DNS decisions.
