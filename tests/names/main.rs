//! Names between real servers, scene by scene, as `dig` shows them: BIND as the inbound endpoint with the VPC's private
//! zones, BIND as the public side with the public addresses of the same names, Unbound as the corporate resolver that
//! follows every CNAME into the public side.

#[path = "../support/mod.rs"]
mod support;

mod delegations;
mod down;
mod follow;
mod guard;
mod nasty;
mod rules;
mod special;
mod views;
mod zone_files;

use support::{
    config::{Config, ONE_PATIENT_TRY},
    peers::{Dig, Peer, dig},
    query::Query,
    tidegate::Tidegate,
};

/// What the VPC knows below amazonaws.com: everything is private.
const PRIVATE_ZONE: &str = "$TTL 60
@ SOA ns hostmaster 1 7200 900 1209600 30
@ NS ns
ns A 10.20.1.2
*.s3.us-east-1 A 10.20.1.10
sts.us-east-1 300 A 10.20.1.11
sts.us-east-1 AAAA fd20::11
sts.us-east-1 HTTPS 1 . alpn=h2 ipv4hint=10.20.1.11 ipv6hint=fd20::11
brief.us-east-1 1 A 10.20.1.12
brief.us-east-1 1 TXT \"soon over\"
queue.us-east-1 CNAME vpce-1.sqs.us-east-1.vpce
vpce-1.sqs.us-east-1.vpce A 10.20.1.13
";

/// The public Internet's answers for the same names.
const PUBLIC_ZONE: &str = "$TTL 60
@ SOA ns hostmaster 1 7200 900 1209600 30
@ NS ns
ns A 203.0.113.2
*.s3.us-east-1 A 203.0.113.10
sts.us-east-1 A 203.0.113.11
sts.us-east-1 AAAA 2001:db8::11
sts.us-east-1 HTTPS 1 . alpn=h2 ipv4hint=203.0.113.11 ipv6hint=2001:db8::11
brief.us-east-1 A 203.0.113.12
queue.us-east-1 A 203.0.113.13
";

/// The company's own zone, as its own servers and the public side have it.
const CORPORATE_ZONE: &str = "$TTL 120
@ SOA ns hostmaster 1 7200 900 1209600 45
@ NS ns
ns A 10.1.1.53
www A 10.1.2.3
intranet CNAME www
backups CNAME backups.s3.us-east-1.amazonaws.com.
login CNAME STS.US-EAST-1.AmazonAWS.com.
by-steps CNAME login
nowhere CNAME none.us-east-1.amazonaws.com.
old DNAME s3.us-east-1.amazonaws.com.
hop CNAME db.edge.example.
brief 120 CNAME brief.us-east-1.amazonaws.com.
shop CNAME shop.cdn.example.
_svc HTTPS 0 sts.us-east-1.amazonaws.com.
ping CNAME pong
pong CNAME ping
across CNAME across.edge.example.
c9 CNAME c8
c8 CNAME c7
c7 CNAME c6
c6 CNAME c5
c5 CNAME c4
c4 CNAME c3
c3 CNAME c2
c2 CNAME c1
c1 CNAME www
a9 CNAME a8
a8 CNAME a7
a7 CNAME a6
a6 CNAME a5
a5 CNAME a4
a4 CNAME a3
a3 CNAME a2
a2 CNAME a1
a1 CNAME sts.us-east-1.amazonaws.com.
z10 CNAME z9.edge.example.
z8 CNAME z7.edge.example.
z6 CNAME z5.edge.example.
z4 CNAME z3.edge.example.
z2 CNAME z1.edge.example.
";

/// A zone of somebody else.
const CDN_ZONE: &str = "$TTL 90
@ SOA ns hostmaster 1 7200 900 1209600 30
@ NS ns
ns A 203.0.113.3
shop A 203.0.113.80
";

/// The zones of the public side and of the company.
const OUTSIDE: [(&str, &str); 3] =
    [("corp.example", CORPORATE_ZONE), ("amazonaws.com", PUBLIC_ZONE), ("cdn.example", CDN_ZONE)];

/// An on-premises network and the VPC that it is linked to.
struct Site {
    endpoint: Peer,
    /// Answers only for its own zones, and follows nothing.
    outside: Peer,
    /// Follows everything to the public side.
    resolver: Peer,
}

impl Site {
    #[track_caller]
    fn start() -> Self {
        let endpoint = Peer::named(&[("amazonaws.com", PRIVATE_ZONE)]);
        let outside = Peer::named(&OUTSIDE);
        let resolver = resolver_before(&outside);
        Self { endpoint, outside, resolver }
    }

    /// AWS names go to the VPC, everything else to the resolver; with more keys for the rule `aws`.
    fn config(&self, aws: &str) -> Config {
        config(&self.endpoint, &self.resolver, aws)
    }

    /// Like [`config`], with the company's names sent to its authoritative server, which leaves chains incomplete.
    fn config_with_open_chains(&self, aws: &str) -> Config {
        self.config(aws).servers("corp", &[self.outside.address.to_string()], ONE_PATIENT_TRY).forward(
            "corp",
            &["corp.example"],
            "corp",
            "",
        )
    }
}

/// Unbound that resolves through this server.
#[track_caller]
fn resolver_before(outside: &Peer) -> Peer {
    let stub = |(zone, _): &(&str, &str)| {
        let (ip, port) = (outside.address.ip(), outside.address.port());
        format!("stub-zone:\n name: \"{zone}.\"\n stub-addr: {ip}@{port}\n")
    };
    let stubs: String = OUTSIDE.iter().map(stub).collect();
    Peer::unbound("", &stubs, &Query::a("ns.corp.example"))
}

fn config(endpoint: &Peer, rest: &Peer, aws: &str) -> Config {
    Config::new()
        .servers("vpc", &[endpoint.address.to_string()], ONE_PATIENT_TRY)
        .servers("site", &[rest.address.to_string()], ONE_PATIENT_TRY)
        .forward("aws", &["preset:aws"], "vpc", aws)
        .forward("rest", &["."], "site", "")
}

/// Asks twice: the second answer is a hit and shows the same.
#[track_caller]
fn shows_twice(tidegate: &Tidegate, name: &str, qtype: &str, lines: &[&str]) {
    let hits = tidegate.hits();
    ask(tidegate, name, qtype).shows_aged(lines);
    let before = tidegate.hits();
    assert_eq!(before, hits, "{name} {qtype}: the first look is a miss");
    ask(tidegate, name, qtype).shows_aged(lines);
    tidegate.await_metric("tidegate_cache_hits_total", &[], before + 1.0);
}

#[track_caller]
fn ask(tidegate: &Tidegate, name: &str, qtype: &str) -> Dig {
    dig(tidegate.address(), name, &[qtype])
}
