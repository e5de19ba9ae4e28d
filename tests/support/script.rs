//! What a scripted upstream does with a query.

use std::{
    net::IpAddr,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use super::{records::Reply, wait::PATIENCE};

/// Steps that follow a query, in order.
#[derive(Debug, Clone, Default)]
pub struct Script {
    pub(super) steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Wait(Duration),
    Hold(Gate),
    Send(Reply),
    SendFrom(IpAddr, Reply),
    SendToPrevious(Reply),
    Drip(Duration, Reply),
    Close,
    /// Over TCP nothing more is sent, and what comes is thrown away until the other end closes too.
    Finish,
    /// Over TCP nothing more is sent, and the connection stays open.
    Mute,
    /// Over UDP the server never sees the query.
    Lose,
}

impl Script {
    /// Nothing comes back, ever.
    pub fn silence() -> Self {
        Self::default()
    }

    /// The query is lost on its way, and not among those seen; over TCP, silence.
    pub fn lost() -> Self {
        Self { steps: vec![Step::Lose] }
    }

    /// The TCP connection is closed; over UDP, silence.
    pub fn close() -> Self {
        Self { steps: vec![Step::Close] }
    }

    /// The reply, this much later.
    pub fn late(delay: Duration, reply: Reply) -> Self {
        Self { steps: vec![Step::Wait(delay), Step::Send(reply)] }
    }

    /// The reply, once the gate is open.
    pub fn held(gate: &Gate, reply: Reply) -> Self {
        Self { steps: vec![Step::Hold(gate.clone()), Step::Send(reply)] }
    }

    /// The reply over UDP from a port of its own at this address of the host.
    pub fn from_elsewhere(address: &str, reply: Reply) -> Self {
        Self { steps: vec![Step::SendFrom(address.parse().expect("an address"), reply)] }
    }

    /// The reply over UDP to where the query before this one came from.
    pub fn to_previous(reply: Reply) -> Self {
        Self { steps: vec![Step::SendToPrevious(reply)] }
    }

    /// The reply, and over TCP no other on this connection. It is closed in order: with octets unread a close is a reset,
    /// which may overtake the reply.
    pub fn last(reply: Reply) -> Self {
        Self { steps: vec![Step::Send(reply), Step::Finish] }
    }

    /// The reply, and over TCP no other on this connection, which stays open.
    pub fn alone(reply: Reply) -> Self {
        Self { steps: vec![Step::Send(reply), Step::Mute] }
    }

    /// The reply over TCP, an octet at a time.
    pub fn dripping(pause: Duration, reply: Reply) -> Self {
        Self { steps: vec![Step::Drip(pause, reply)] }
    }

    /// Sends one more reply to the same query.
    pub fn then(mut self, reply: Reply) -> Self {
        self.steps.push(Step::Send(reply));
        self
    }

    /// This much time before what follows.
    pub fn then_wait(mut self, delay: Duration) -> Self {
        self.steps.push(Step::Wait(delay));
        self
    }

    /// The same, all of it this much later.
    pub fn after(mut self, delay: Duration) -> Self {
        self.steps.insert(0, Step::Wait(delay));
        self
    }

    /// Whether the query is lost before the server sees it.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.steps[..], [Step::Lose])
    }

    /// Whether it ends a connection in order.
    pub(super) fn finishes(&self) -> bool {
        matches!(self.steps[..], [.., Step::Finish | Step::Mute])
    }

    /// Whether the steps take time.
    pub(super) fn lingers(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Wait(_) | Step::Hold(_) | Step::Drip(..)))
    }
}

impl From<Reply> for Script {
    fn from(reply: Reply) -> Self {
        Self { steps: vec![Step::Send(reply)] }
    }
}

/// Holds answers back until a test lets them go.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets everything through, now and from now on.
    pub fn open(&self) {
        *self.0.0.lock().expect("no holder panics") = true;
        self.0.1.notify_all();
    }

    pub(super) fn wait(&self) {
        let open = self.0.0.lock().expect("no holder panics");
        // A test that never opens its gate has failed already.
        drop(self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open));
    }
}
