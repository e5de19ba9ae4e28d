//! Scripts: what a scripted upstream does with a query.

use std::{
    net::IpAddr,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use super::{records::Reply, wait::PATIENCE};

/// The steps for a query, in order.
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
    /// Over TCP, stops sending and discards what arrives until the other side closes too.
    Finish,
    /// Over TCP, stops sending and keeps the connection open.
    Mute,
    /// Over UDP the server never sees the query.
    Lose,
}

impl Script {
    /// Sends nothing, ever.
    pub fn silence() -> Self {
        Self::default()
    }

    /// Loses the query before it is recorded; over TCP, silence.
    pub fn lost() -> Self {
        Self { steps: vec![Step::Lose] }
    }

    /// Closes the TCP connection; over UDP, silence.
    pub fn close() -> Self {
        Self { steps: vec![Step::Close] }
    }

    /// Sends the reply after this delay.
    pub fn late(delay: Duration, reply: Reply) -> Self {
        Self { steps: vec![Step::Wait(delay), Step::Send(reply)] }
    }

    /// Sends the reply once the gate is open.
    pub fn held(gate: &Gate, reply: Reply) -> Self {
        Self { steps: vec![Step::Hold(gate.clone()), Step::Send(reply)] }
    }

    /// Sends the reply over UDP from another port at this address of the host.
    pub fn from_elsewhere(address: &str, reply: Reply) -> Self {
        Self { steps: vec![Step::SendFrom(address.parse().expect("an address"), reply)] }
    }

    /// Sends the reply over UDP to the source of the previous query.
    pub fn to_previous(reply: Reply) -> Self {
        Self { steps: vec![Step::SendToPrevious(reply)] }
    }

    /// Sends the reply, and over TCP closes the connection after it. It closes in order: with unread octets a close is
    /// a reset, which may overtake the reply.
    pub fn last(reply: Reply) -> Self {
        Self { steps: vec![Step::Send(reply), Step::Finish] }
    }

    /// Sends the reply, and over TCP no further one on this connection, which stays open.
    pub fn alone(reply: Reply) -> Self {
        Self { steps: vec![Step::Send(reply), Step::Mute] }
    }

    /// Sends the reply over TCP one octet at a time.
    pub fn dripping(pause: Duration, reply: Reply) -> Self {
        Self { steps: vec![Step::Drip(pause, reply)] }
    }

    /// Sends one more reply to the same query.
    pub fn then(mut self, reply: Reply) -> Self {
        self.steps.push(Step::Send(reply));
        self
    }

    /// Waits this long before the next step.
    pub fn then_wait(mut self, delay: Duration) -> Self {
        self.steps.push(Step::Wait(delay));
        self
    }

    /// Delays all of it by this much.
    pub fn after(mut self, delay: Duration) -> Self {
        self.steps.insert(0, Step::Wait(delay));
        self
    }

    /// Whether the query is lost before the server sees it.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.steps[..], [Step::Lose])
    }

    /// Whether it closes a connection in order.
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

/// Holds answers back until a test opens it.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Opens it for good.
    pub fn open(&self) {
        *self.0.0.lock().expect("no holder panics") = true;
        self.0.1.notify_all();
    }

    pub(super) fn wait(&self) {
        let open = self.0.0.lock().expect("no holder panics");
        // A test that never opens its gate has already failed.
        drop(self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open));
    }
}
