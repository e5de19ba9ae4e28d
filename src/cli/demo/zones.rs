//! The data of the simulated servers, as zones that hickory-server keeps in memory.
//!
//! Each server has one zone, the root. So it answers every name as a resolver would, with whole CNAME chains, and also
//! `. NS`, the probe for a server of all names.

use std::{net::Ipv4Addr, sync::Arc};

use hickory_server::{
    net::runtime::TokioRuntimeProvider,
    proto::{
        ProtoError,
        rr::{
            Name, RData, Record,
            rdata::{A, CNAME, NS, SOA},
        },
    },
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneType},
};

/// Services with an interface endpoint.
pub(super) const SERVICES: [&str; 14] = [
    "s3",
    "ec2",
    "sts",
    "ssm",
    "ssmmessages",
    "ec2messages",
    "kms",
    "secretsmanager",
    "logs",
    "monitoring",
    "sqs",
    "sns",
    "lambda",
    "dynamodb",
];
/// Address of an AWS service on the internet (from RFC 5737's blocks).
pub(super) const PUBLIC: &str = "203.0.113.80";
/// The alias of the interface endpoint for EC2.
const VPCE: &str = "vpce-0a1b2c3d.ec2.eu-west-1.vpce.amazonaws.com";

/// A name with its data: addresses, or one other name.
type Entry = (String, String);

/// The data of the inbound endpoint: private addresses for services with an interface endpoint, public ones for the
/// rest, as the VPC's resolver answers.
pub(super) fn inbound(ttl: u32) -> Result<Catalog, ProtoError> {
    let mut entries = vec![
        entry("ec2.eu-west-1.amazonaws.com", VPCE),
        entry(VPCE, "10.20.1.30 10.20.2.30"),
        entry("*.s3.eu-west-1.amazonaws.com", "10.20.1.21 10.20.2.21"),
    ];
    for (at, service) in SERVICES.iter().enumerate().filter(|(_, service)| **service != "ec2") {
        let addresses = format!("10.20.1.{} 10.20.2.{}", 21 + at, 21 + at);
        entries.push((format!("{service}.eu-west-1.amazonaws.com"), addresses));
    }
    for name in ["iam.amazonaws.com", "s3.amazonaws.com", "support.us-east-1.amazonaws.com"] {
        entries.push(entry(name, PUBLIC));
    }
    catalog(&entries, ttl)
}

/// The data of a resolver on the internet.
pub(super) fn public(ttl: u32) -> Result<Catalog, ProtoError> {
    catalog(&internet(), ttl)
}

/// The data of the site's DNS: the site's own names, and the internet's answers for all others.
pub(super) fn site(ttl: u32) -> Result<Catalog, ProtoError> {
    let mut entries = internet();
    entries.extend([
        entry("intranet.corp.example", "10.1.5.10"),
        entry("wiki.corp.example", "10.1.5.11"),
        entry("printer.corp.example", "10.1.5.12"),
        entry("files.corp.example", "s3.eu-west-1.amazonaws.com"),
    ]);
    catalog(&entries, ttl)
}

fn internet() -> Vec<Entry> {
    let services = SERVICES.iter().map(|service| (format!("{service}.eu-west-1.amazonaws.com"), PUBLIC.to_owned()));
    let mut entries: Vec<Entry> = services.collect();
    entries.push(entry("*.s3.eu-west-1.amazonaws.com", PUBLIC));
    entries.push(entry("iam.amazonaws.com", PUBLIC));
    entries.push(entry("www.example.org", "203.0.113.7"));
    entries
}

fn entry(name: &str, data: &str) -> Entry {
    (name.to_owned(), data.to_owned())
}

/// A root zone with these entries; every record, and a negative answer, has this TTL.
fn catalog(entries: &[Entry], ttl: u32) -> Result<Catalog, ProtoError> {
    let root = Name::root();
    let primary = Name::from_ascii("a.root-servers.example.")?;
    let soa = SOA::new(primary.clone(), Name::from_ascii("hostmaster.example.")?, 1, 3600, 900, 604_800, ttl);
    let mut zone =
        InMemoryZoneHandler::<TokioRuntimeProvider>::empty(root.clone(), ZoneType::Primary, AxfrPolicy::Deny);
    zone.upsert_mut(Record::from_rdata(root.clone(), ttl, RData::SOA(soa)), 1);
    zone.upsert_mut(Record::from_rdata(root.clone(), ttl, RData::NS(NS(primary))), 1);
    for (name, data) in entries {
        let owner = Name::from_ascii(format!("{name}."))?;
        for word in data.split(' ') {
            let rdata = match word.parse::<Ipv4Addr>() {
                Ok(address) => RData::A(A(address)),
                Err(_) => RData::CNAME(CNAME(Name::from_ascii(format!("{word}."))?)),
            };
            zone.upsert_mut(Record::from_rdata(owner.clone(), ttl, rdata), 1);
        }
    }
    let mut catalog = Catalog::new();
    catalog.upsert(root.into(), vec![Arc::new(zone)]);
    Ok(catalog)
}
