//! Listeners: bytes from clients and back. No DNS decisions are made here.
//!
//! Each worker has its own sockets for every address. [`udp`] moves datagrams in batches; [`accept`] takes connections
//! and passes them to `stream` (TCP, TLS) or `https`; [`quic`] does both. All pass what they read to
//! [`Engine::handle`](crate::engine::Engine::handle), and spawn a task for queries that must wait. [`connections`]
//! enforces the limits on connections and their memory.

pub mod accept;
pub mod connections;
pub mod lifetime;
pub mod quic;
pub mod udp;

mod https;
mod proxy;
mod stream;

use std::{net::IpAddr, rc::Rc};

use crate::{
    clock::Moment,
    engine::{Action, ClientChannel, Context, Incoming, resolve},
};

use accept::Session;
pub use accept::{ConnectionLimits, Protocol};
pub use lifetime::{ListenerLife, Predecessor};
pub use quic::QuicServer;

/// The response to a message on a stream of its own; none if there is to be no response.
async fn answer(context: &Rc<Context>, message: &[u8], client: IpAddr, carrier: ClientChannel) -> Option<Vec<u8>> {
    let now = Moment::now();
    let incoming = Incoming { message, client, carrier, now };
    let engine = &context.engine;
    context.counters.asked(carrier.transport, client.is_ipv4());
    context.counters.sample(message, client);
    let action = {
        let mut scratch = context.scratch.borrow_mut();
        let action = context.handle(&engine.snapshot(), &incoming, &mut scratch);
        context.counters.took_batch(Moment::now().since(now));
        match action {
            Action::Drop => return None,
            Action::Reply(length) => return Some(scratch[..length].to_vec()),
            Action::ReplyAndRefresh(length, query) => {
                udp::refresh(context, query);
                return Some(scratch[..length].to_vec());
            }
            Action::Resolve(query) => query,
        }
    };
    // Spawned, so that a client that leaves does not cancel an answer that others wait for.
    let (reply, replied) = tokio::sync::oneshot::channel();
    let owned = Rc::clone(context);
    tokio::task::spawn_local(async move {
        let resolved = resolve::resolve(&owned, &action).await;
        let mut scratch = owned.scratch.borrow_mut();
        let length = resolved.write(&owned, &action, &mut scratch);
        drop(reply.send(scratch[..length].to_vec()));
    });
    replied.await.ok()
}
