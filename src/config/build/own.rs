//! Upstreams that are our own listeners: warned of and left out, so that one bad line does not stop a site's DNS. The
//! names of a group with nothing left get SERVFAIL, everything else is served.

use std::net::IpAddr;

use super::{
    super::{
        error::{Place, Problem},
        file::{File, Upstream},
        group::{FixedServer, ServerAddress},
        plan::{Boot, Live},
    },
    Builder,
};
use crate::wire::Transport;

impl Builder<'_> {
    pub(super) fn leave_out_own_listeners(&mut self, file: &File, boot: &Boot, live: &mut Live) {
        for (group, upstream) in live.groups.iter_mut().zip(&file.upstream) {
            for tier in &mut group.tiers {
                tier.retain(|server| {
                    let ServerAddress::Fixed(server) = &server.address else { return true };
                    if !is_own(boot, server) {
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
}

/// Whether a query to `server` would come back to us. A wildcard listener has every loopback address; what other
/// addresses the host has is known where the sockets are made.
fn is_own(boot: &Boot, server: &FixedServer) -> bool {
    if !matches!(server.transport, Transport::Udp | Transport::Tcp) {
        return false;
    }
    boot.listen.iter().any(|listen| {
        let (ours, theirs) = (&listen.endpoint, &server.endpoint);
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

/// Where the server stands, else the group's name.
fn place_of(upstream: &Upstream, server: &FixedServer) -> Place {
    let mut texts = upstream.server_texts();
    let place = texts.find(|text| super::upstream::is_written_as(&text.value, server)).map(|text| &text.place);
    place.unwrap_or(&upstream.name.place).clone()
}
