//! Hits, stale entries, and what a look-up says of an entry.

use tidegate::{
    cache::{Cache, CacheHit, CacheKey, Insertion, Integrity, Lookup, New, Prefetch, Staleness, Stamp},
    wire::{Class, Name, RecordType},
};

use crate::{DAY, NOW, STAMP, ask, key, name, put, put_sized, response};

#[test]
fn stripped_entries_are_marked_fresh_and_stale_until_replaced() {
    let cache = Cache::new(1 << 20);
    let name: Name = "stripped.example".parse().unwrap();
    let key = key(&name);
    let (message, ttl_offsets) = response(&key, &[60], 1, 4);
    for integrity in [Integrity::Stripped, Integrity::Whole] {
        let new = New { message: &message, ttl_offsets: &ttl_offsets, lifetime: 60, now: NOW, stamp: STAMP, integrity };
        cache.insert(&key, key.hash(), new, |_| false);
        for _ in 0..3 {
            assert!(matches!(ask(&cache, &key, NOW + 1).0, Lookup::Hit(found) if found.integrity == integrity));
        }
        let mut reply = [0; 512];
        let how = Staleness { max: 100, ttl: 30 };
        let found = cache.stale(&key, key.hash(), NOW + 70, 1, how, &mut reply, |_, stamp| Some(stamp));
        assert_eq!(found.map(|found| found.integrity), Some(integrity));
    }
}

#[test]
fn a_look_at_an_entry_leaves_no_trace() {
    let (cache, name) = (Cache::new(1 << 20), name("www.example.com"));
    let key = key(&name);
    assert_eq!(cache.peek(&key, key.hash(), NOW), None);
    put(&cache, &key, 100, 7);
    for _ in 0..5 {
        let peeked = cache.peek(&key, key.hash(), NOW + 95).unwrap();
        assert_eq!((peeked.found.age, peeked.found.remaining, peeked.found.past), (95, 5, 0));
        assert_eq!(peeked.stamp, STAMP);
    }
    // Five hits would have made it popular, and the next one would be told to fetch it again.
    let (lookup, reply) = ask(&cache, &key, NOW + 95);
    assert!(matches!(lookup, Lookup::Hit(found) if found.prefetch == Prefetch::NotDue), "{lookup:?}");
    assert_eq!(cache.peek(&key, key.hash(), NOW + 95).unwrap().message, reply);
    let expired = cache.peek(&key, key.hash(), NOW + 130).unwrap();
    assert_eq!((expired.found.remaining, expired.found.past), (0, 30));
}

#[test]
fn a_hit_is_the_message_with_its_ttls_counted_down() {
    let (cache, name) = (Cache::new(1 << 20), name("www.example.com"));
    let (key, ttls) = (key(&name), [300, 60, 4000]);
    let (message, ttl_offsets) = response(&key, &ttls, 7, 4);
    let new = New {
        message: &message,
        ttl_offsets: &ttl_offsets,
        lifetime: 60,
        now: NOW,
        stamp: STAMP,
        integrity: Integrity::Whole,
    };
    assert_eq!(cache.insert(&key, key.hash(), new, |_| false), Insertion::Stored);
    for age in [0, 1, 59] {
        let (lookup, reply) = ask(&cache, &key, NOW + age);
        let expected = CacheHit {
            length: message.len(),
            rule: 3,
            age,
            remaining: 60 - age,
            past: 0,
            prefetch: Prefetch::NotDue,
            integrity: Integrity::Whole,
        };
        let Lookup::Hit(found) = lookup else { panic!("{lookup:?} at {age}") };
        assert_eq!(CacheHit { prefetch: Prefetch::NotDue, ..found }, expected);
        assert_eq!(reply, response(&key, &ttls.map(|ttl| ttl - age), 7, 4).0);
    }
}

#[test]
fn expired_entry_is_a_miss_and_may_be_served_stale() {
    let (cache, name) = (Cache::new(1 << 20), name("old.example.com"));
    let key = key(&name);
    put(&cache, &key, 60, 1);
    let (lookup, _) = ask(&cache, &key, NOW + 60);
    let Lookup::Expired(found) = lookup else { panic!("{lookup:?}") };
    assert_eq!((found.age, found.remaining, found.past), (60, 0, 0));

    let mut reply = [0; 512];
    let mut stale = |now, max| {
        let staleness = Staleness { max, ..DAY };
        let found = cache.stale(&key, key.hash(), now, 1, staleness, &mut reply, |_, _| None)?;
        Some((found.past, reply[..found.length].to_vec()))
    };
    assert_eq!(stale(NOW + 160, 100), Some((100, response(&key, &[30], 1, 4).0)));
    assert_eq!(stale(NOW + 161, 100), None, "too long past");
    assert_eq!(stale(NOW + 20, 100), Some((0, response(&key, &[40], 1, 4).0)), "fresh after all");
}

#[test]
fn every_part_of_the_key_tells_entries_apart() {
    let cache = Cache::new(1 << 20);
    let (name, shorter) = (name("a.b.example"), name("b.example"));
    let base = key(&name);
    let keys = [
        base,
        key(&shorter),
        CacheKey { qtype: RecordType::AAAA, ..base },
        CacheKey { qclass: Class::CH, ..base },
        CacheKey { do_bit: true, ..base },
        CacheKey { cd: true, ..base },
        CacheKey { do_bit: true, cd: true, ..base },
        CacheKey { view: 9, ..base },
    ];
    for (fill, key) in (0..).zip(&keys) {
        assert_eq!(ask(&cache, key, NOW).0, Lookup::Miss, "{key:?}");
        assert_eq!(put(&cache, key, 60, fill), Insertion::Stored);
    }
    for (fill, key) in (0..).zip(&keys) {
        assert_eq!(ask(&cache, key, NOW).1, response(key, &[60], fill, 4).0, "{key:?}");
    }
    let mut seen = 0;
    cache.for_each(|entry| {
        assert!(keys.contains(&entry.key), "{entry:?}");
        assert_eq!((entry.stored_at, entry.lifetime, entry.stamp), (NOW, 60, STAMP));
        assert_eq!(entry.ttl_offsets, response(&entry.key, &[60], 0, 4).1);
        seen += 1;
    });
    assert_eq!(seen, keys.len());
}

#[test]
fn an_answer_that_does_not_fit_gives_its_question_alone() {
    let (cache, name) = (Cache::new(1 << 20), name("large.example"));
    let key = key(&name);
    put_sized(&cache, &key, 60, 1, 1000, NOW);
    let mut reply = [0xaa; 512];
    let lookup = cache.get(&key, key.hash(), NOW, 1, &mut reply, |_, _| None);
    let Lookup::TooLarge(found) = lookup else { panic!("{lookup:?}") };
    assert_eq!(reply[..found.length], response(&key, &[], 0, 0).0);
    assert!(reply[found.length..].iter().all(|&octet| octet == 0xaa));
}

#[test]
fn an_entry_of_another_generation_is_judged_once() {
    let (cache, name) = (Cache::new(1 << 20), name("judged.example"));
    let key = key(&name);
    put_sized(&cache, &key, 60, 1, 1000, NOW);
    let newer = Stamp { generation: 2, fingerprint: 0xbeef, rule: 8 };
    let mut small = [0; 100];
    let lookup = cache.get(&key, key.hash(), NOW, 2, &mut small, |message, stamp| {
        assert_eq!((message, stamp), (&response(&key, &[60], 1, 1000).0[..], STAMP), "whole, whatever fits");
        Some(newer)
    });
    assert!(matches!(lookup, Lookup::TooLarge(CacheHit { rule: 8, .. })), "{lookup:?}");
    let mut reply = [0; 4096];
    let lookup = cache.get(&key, key.hash(), NOW, 2, &mut reply, |_, _| panic!("judged before"));
    assert!(matches!(lookup, Lookup::Hit(CacheHit { rule: 8, .. })), "{lookup:?}");
    let lookup = cache.get(&key, key.hash(), NOW, 3, &mut reply, |_, stamp| {
        assert_eq!(stamp, newer);
        None
    });
    assert_eq!(lookup, Lookup::Miss);
    assert_eq!(cache.stats().entries, 0, "what was judged bad is gone");
    let stale = cache.stale(&key, key.hash(), NOW, 2, DAY, &mut reply, |_, _| panic!("it is gone"));
    assert_eq!(stale, None);
}

#[test]
fn one_caller_is_told_to_prefetch_a_popular_entry() {
    let (cache, name) = (Cache::new(1 << 20), name("popular.example"));
    let key = key(&name);
    let due = |now| matches!(ask(&cache, &key, now).0, Lookup::Hit(CacheHit { prefetch: Prefetch::Due, .. }));
    put(&cache, &key, 100, 1);
    assert!(!due(NOW + 95), "one hit is not popular");
    assert!(due(NOW + 95));
    assert!(!due(NOW + 96), "only one caller is told");
    put(&cache, &key, 100, 1);
    assert_eq!([85, 90, 91].map(|age| due(NOW + age)), [false, false, true], "another life, its last tenth");
    put(&cache, &key, 9, 1);
    assert_eq!([1, 2, 8].map(|age| due(NOW + age)), [false; 3], "too short a life");
}
