//! Upstreams that are our own listeners are left out with a warning, so that one bad line does not stop a site's DNS.
//! If a group has no server left, its names get SERVFAIL and everything else works.

use std::net::IpAddr;

use super::{
    super::{
        address::Endpoint,
        error::Problem,
        file::{File, Upstream},
        group::{FixedServer, ServerAddress},
        plan::{Boot, Live},
        source::Place,
    },
    Builder,
};
use crate::wire::Transport;

impl Builder<'_> {
    pub(super) fn leave_out_own_listeners(&mut self, file: &File, boot: &Boot, live: &mut Live) {
        for (group, upstream) in live.groups.iter_mut().zip(&file.upstream) {
            self.check_bootstrap(upstream, boot);
            for tier in &mut group.tiers {
                tier.retain(|server| {
                    let ServerAddress::Fixed(server) = &server.address else { return true };
                    if !is_own_server(boot, server) {
                        return true;
                    }
                    let message = format!(
                        "server {server} of upstream \"{}\" is our own listener: it is left out",
                        upstream.name.value
                    );
                    self.warnings.push(Problem::at(&place_of(upstream, server), message));
                    false
                });
            }
        }
    }

    /// A name that is asked of ourselves would wait for itself: an error, unlike one server of several.
    fn check_bootstrap(&mut self, upstream: &Upstream, boot: &Boot) {
        for text in upstream.table.bootstrap.iter().flat_map(|texts| &texts.value) {
            if Endpoint::parse(&text.value, 53).is_ok_and(|endpoint| is_own(boot, &endpoint)) {
                let message = format!("bootstrap server {} is our own listener", text.value);
                let help = "name a DNS server that does not depend on this tidegate";
                self.problem_with_help(&text.place, message, help);
            }
        }
    }
}

/// Whether a query to `server` would come back to us.
fn is_own_server(boot: &Boot, server: &FixedServer) -> bool {
    matches!(server.transport, Transport::Udp | Transport::Tcp) && is_own(boot, &server.endpoint)
}

/// Whether we listen there. A wildcard listener covers every loopback address; the host's other addresses are only
/// known when the sockets are made.
fn is_own(boot: &Boot, theirs: &Endpoint) -> bool {
    boot.listen.iter().any(|listen| {
        let ours = &listen.endpoint;
        if ours.port != theirs.port {
            return false;
        }
        let loopback = theirs.address.ip.is_loopback();
        match ours.address.ip {
            IpAddr::V4(ip) if ip.is_unspecified() => theirs.address.ip.is_ipv4() && loopback,
            IpAddr::V6(ip) if ip.is_unspecified() => loopback,
            _ => ours.address == theirs.address,
        }
    })
}

/// Where the server is written, else the group's name.
fn place_of(upstream: &Upstream, server: &FixedServer) -> Place {
    let mut texts = upstream.server_texts();
    let place = texts.find(|text| super::upstream::is_written_as(&text.value, server)).map(|text| &text.place);
    *place.unwrap_or(&upstream.name.place)
}
