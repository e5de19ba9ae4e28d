//! What the cache promises, through its public functions.

#![allow(clippy::unwrap_used, reason = "tests")]

mod eviction;
mod forms;
mod lookup;
mod model;
mod remove;
mod store;

use tidegate::{
    cache::{Cache, CacheKey, Insertion, Integrity, Lookup, New, Staleness, Stamp},
    wire::{Class, Name, RecordType},
};

const STAMP: Stamp = Stamp { generation: 1, fingerprint: 0xfeed, rule: 3 };
const NOW: u32 = 1_000_000;
const DAY: Staleness = Staleness { max: 86_400, ttl: 30 };

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn key(name: &Name) -> CacheKey<'_> {
    CacheKey { name: name.as_wire(), qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false, view: 0 }
}

/// A response for `key` with a TXT-like record of each TTL, `fill` as its data; and where the TTLs stand.
fn response(key: &CacheKey<'_>, ttls: &[u32], fill: u8, length: u16) -> (Vec<u8>, Vec<u16>) {
    let count = u16::try_from(ttls.len()).unwrap();
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1];
    message.extend([count.to_be_bytes(), [0, 0], [0, 0]].concat());
    message.extend(key.name);
    message.extend([key.qtype.0.to_be_bytes(), key.qclass.0.to_be_bytes()].concat());
    let mut offsets = Vec::new();
    for ttl in ttls {
        message.extend([0xc0, 12]);
        message.extend([key.qtype.0.to_be_bytes(), key.qclass.0.to_be_bytes()].concat());
        offsets.push(u16::try_from(message.len()).unwrap());
        message.extend(ttl.to_be_bytes());
        message.extend(length.to_be_bytes());
        message.resize(message.len() + usize::from(length), fill);
    }
    (message, offsets)
}

fn put(cache: &Cache, key: &CacheKey<'_>, ttl: u32, fill: u8) -> Insertion {
    put_sized(cache, key, ttl, fill, 4, NOW)
}

fn put_sized(cache: &Cache, key: &CacheKey<'_>, ttl: u32, fill: u8, length: u16, now: u32) -> Insertion {
    let (message, ttl_offsets) = response(key, &[ttl], fill, length);
    let new = New {
        message: &message,
        ttl_offsets: &ttl_offsets,
        lifetime: ttl,
        now,
        stamp: STAMP,
        integrity: Integrity::Whole,
    };
    cache.insert(key, key.hash(), new, |_| false)
}

/// Looks up under the generation that everything is stored under.
fn ask(cache: &Cache, key: &CacheKey<'_>, now: u32) -> (Lookup, Vec<u8>) {
    let mut reply = vec![0xaa; 65_535];
    let lookup = cache.get(key, key.hash(), now, STAMP.generation, &mut reply, |_, _| panic!("same generation"));
    let length = match lookup {
        Lookup::Hit(found) | Lookup::TooLarge(found) => found.length,
        Lookup::Miss | Lookup::Expired(_) => 0,
    };
    reply.truncate(length);
    (lookup, reply)
}

fn is_hit(cache: &Cache, key: &CacheKey<'_>) -> bool {
    matches!(ask(cache, key, NOW).0, Lookup::Hit(_))
}
