//! What the cache takes, as the kernel counts it: a process of its own, so that nothing else moves the figure.

#![allow(clippy::unwrap_used, reason = "tests")]

use tidegate::{
    cache::{Cache, CacheKey, Insertion, Integrity, New, Stamp},
    wire::{Class, Name, RecordType},
};

const NAMES: usize = 150_000;
/// Bytes a name for names of 56 characters with one A record; the leanest resolver takes 141.
const BYTES_A_NAME: usize = 110;

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn insert(cache: &Cache, index: usize) {
    let name: Name = format!("host-{index:08}.service.department.corporation.example.net").parse().unwrap();
    assert_eq!(name.as_wire().len(), 58);
    let key =
        CacheKey { name: name.as_wire(), qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false, view: 0 };
    let mut message = b"\0\0\x81\x80\0\x01\0\x01\0\0\0\0".to_vec();
    message.extend(name.as_wire());
    message.extend(b"\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\x0a\x14\x01\x0a");
    let stamp = Stamp { generation: 1, fingerprint: 1, rule: 1 };
    let new = New { message: &message, ttl_offsets: &[80], lifetime: 3600, now: 1, stamp, integrity: Integrity::Whole };
    assert!(!matches!(cache.insert(&key, key.hash(), new, |_| false), Insertion::Refused(_)));
}

#[test]
fn a_name_stays_within_its_budget_and_bytes_match_the_kernels_count() {
    let before = resident();
    let cache = Cache::new(32 << 20);
    let empty = cache.stats();
    assert!(empty.bytes < 64 << 10, "an empty cache takes next to nothing: {empty:?}");
    for index in 0..NAMES {
        insert(&cache, index);
    }
    let stats = cache.stats();
    assert_eq!(stats.entries, NAMES, "all of them fit");
    assert!(stats.bytes <= BYTES_A_NAME * NAMES, "{} bytes a name", stats.bytes / NAMES);
    assert_near(resident() - before, stats.bytes);

    // Three times as many as fit: full, and no more than the bound.
    for index in NAMES..5 * NAMES {
        insert(&cache, index);
    }
    let stats = cache.stats();
    assert!(stats.bytes <= stats.capacity && stats.bytes > stats.capacity * 9 / 10, "{stats:?}");
    assert!(stats.bytes <= BYTES_A_NAME * stats.entries, "{} bytes a name", stats.bytes / stats.entries);
    assert_near(resident() - before, stats.bytes);
}

fn assert_near(resident: usize, counted: usize) {
    let difference = resident.abs_diff(counted);
    assert!(difference * 10 <= counted, "the kernel says {resident}, the cache {counted}");
}
