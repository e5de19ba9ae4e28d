//! How many file descriptors the connections of clients may hold.
//!
//! Policy: the limit on open files (RLIMIT_NOFILE, in the unit LimitNOFILE=), less what the daemon needs for itself, is
//! divided: up to an eighth for the operators' HTTP, half of the rest for clients' connections, a quarter for UDP ports
//! to upstreams, and a quarter for connections to upstreams and files. So clients that open connections without end
//! cannot stop queries from being forwarded, and ports cannot stop clients from being accepted.

use std::fmt;

use crate::{admin, config::Boot};

/// Descriptors for standard streams, the log, notifications, the control socket and its clients, netlink, files being
/// read.
const PROCESS: u64 = 24;
/// Descriptors for a thread's runtime and its short-lived files.
const THREAD: u64 = 6;

/// How the descriptors are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorBudget {
    limit: u64,
    /// Connections of clients.
    pub(super) clients: usize,
    /// Connections of the operators' HTTP.
    pub(super) operators: usize,
    /// UDP ports to upstreams.
    pub(super) source_ports: usize,
    wanted: usize,
}

impl DescriptorBudget {
    /// Divides `limit` descriptors between the parts of a daemon with this many workers.
    pub fn new(boot: &Boot, workers: usize, limit: u64) -> Self {
        // Twice, since a second descriptor of each is kept for whoever takes over.
        let sockets = 2 * boot.listen.len() + boot.tls.len() + boot.https.len() + boot.quic.len();
        let own = PROCESS + THREAD + (2 * sockets as u64 + THREAD) * workers as u64;
        let left = limit.saturating_sub(own);
        let operators = usize::try_from(left / 8).unwrap_or(usize::MAX).clamp(1, admin::MAX_CONNECTIONS);
        let half = left.saturating_sub(operators as u64) / 2;
        let wanted = usize::try_from(boot.streams.connections).unwrap_or(usize::MAX);
        let clients = usize::try_from(half).unwrap_or(usize::MAX).min(wanted).max(1);
        let source_ports = usize::try_from(half / 2).unwrap_or(usize::MAX).max(1);
        Self { limit, clients, operators, source_ports, wanted }
    }

    /// A warning if clients may hold fewer connections than the configuration wants.
    pub fn warning(&self) -> Option<impl fmt::Display + use<>> {
        let Self { limit, clients, wanted, .. } = *self;
        (clients < wanted).then(|| {
            format!(
                "tcp_connections = {wanted} in [limits] is more than the limit of {limit} open files allows: {clients} \
                 connections of clients are kept at most; raise LimitNOFILE= of the unit (ulimit -n)"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Plan;

    #[test]
    fn clients_get_less_than_half_of_what_is_left_and_no_more_than_is_wanted() {
        let text = "[server]\nlisten = [\"127.0.0.1:53\"]\n[upstream.site]\nservers = [\"192.0.2.1\"]\n[[forward]]\n\
                    zones = [\".\"]\nto = \"site\"\n[limits]\ntcp_connections = 1000\n";
        let boot = Plan::from_text("t.toml", text).unwrap().boot;
        for (workers, limit, clients, operators, is_warned) in
            [(2, 64, 6, 1, true), (2, 256, 90, 25, true), (2, 10, 1, 1, true), (2, 65_536, 1000, 64, false)]
        {
            let budget = DescriptorBudget::new(&boot, workers, limit);
            assert_eq!((budget.clients, budget.operators), (clients, operators), "of {limit}");
            assert_eq!(budget.warning().is_some(), is_warned, "of {limit}");
        }
    }
}
