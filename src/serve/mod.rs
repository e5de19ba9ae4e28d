//! Listeners: bytes from clients and back. No DNS decisions are made here.
//!
//! Each worker has its own sockets for every address. [`udp`] moves datagrams in batches, [`stream`] framed messages
//! over TCP; both hand what they read to [`Engine::handle`](crate::engine::Engine::handle) and give a task of its own
//! to what must wait.

pub mod connections;
pub mod stream;
pub mod udp;
