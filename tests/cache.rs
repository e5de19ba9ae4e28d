//! What the cache promises, through its public functions.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::HashMap, thread};

use proptest::prelude::*;
use tidegate::{
    cache::{Cache, CacheHit, CacheKey, Insertion, Integrity, Lookup, MOVES, New, Prefetch, Refusal, Staleness, Stamp},
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

#[test]
fn what_policy_stripped_says_so_fresh_and_stale_until_it_is_replaced() {
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
fn an_answer_replaces_the_one_before_whatever_its_size() {
    let (cache, name) = (Cache::new(1 << 20), name("moves.example"));
    let key = key(&name);
    assert_eq!(put_sized(&cache, &key, 60, 1, 4, NOW), Insertion::Stored);
    for (fill, length) in [(2, 4), (3, 400), (4, 4)] {
        assert_eq!(put_sized(&cache, &key, 60, fill, length, NOW), Insertion::Replaced);
        assert_eq!(ask(&cache, &key, NOW).1, response(&key, &[60], fill, length).0);
        assert_eq!(cache.stats().entries, 1);
    }
    // A new life in place of an expired one.
    put_sized(&cache, &key, 60, 5, 4, NOW + 1000);
    assert!(matches!(ask(&cache, &key, NOW + 1059).0, Lookup::Hit(_)));
}

#[test]
fn what_cannot_be_read_back_is_refused() {
    let (cache, name, other) = (Cache::new(256 << 10), name("a.example"), name("b.example"));
    let key = key(&name);
    let (message, ttl_offsets) = response(&key, &[60], 1, 4);
    let good = New {
        message: &message,
        ttl_offsets: &ttl_offsets,
        lifetime: 60,
        now: NOW,
        stamp: STAMP,
        integrity: Integrity::Whole,
    };
    let mut two_questions = message.clone();
    two_questions[5] = 2;
    let (large, _) = response(&key, &[60], 1, 33_000);
    for (new, refusal) in [
        (New { lifetime: 0, ..good }, Refusal::NoLifetime),
        (New { message: &large, ..good }, Refusal::TooLarge),
        (New { message: &message[..20], ..good }, Refusal::Mismatch),
        (New { message: &[], ..good }, Refusal::Mismatch),
        (New { message: &two_questions, ..good }, Refusal::Mismatch),
        (New { ttl_offsets: &[11], ..good }, Refusal::Mismatch),
        (New { ttl_offsets: &[u16::try_from(message.len()).unwrap() - 3], ..good }, Refusal::Mismatch),
        (New { message: &response(&self::key(&other), &[60], 1, 4).0, ..good }, Refusal::Mismatch),
    ] {
        assert_eq!(cache.insert(&key, key.hash(), new, |_| false), Insertion::Refused(refusal), "{:?}", new.lifetime);
    }
    let unended = CacheKey { name: b"\x01a\x07exampl", ..key };
    assert_eq!(cache.insert(&unended, unended.hash(), good, |_| false), Insertion::Refused(Refusal::Mismatch));
    assert_eq!(cache.stats().entries, 0);
}

#[test]
fn a_message_of_a_thousand_records_comes_back_whole() {
    let (cache, name) = (Cache::new(4 << 20), name("many.example"));
    let key = key(&name);
    for count in [254_u16, 255, 256, 1000] {
        let ttls: Vec<u32> = (0..count).map(|ttl| 1000 + u32::from(ttl)).collect();
        let (message, ttl_offsets) = response(&key, &ttls, 9, 4);
        let new = New {
            message: &message,
            ttl_offsets: &ttl_offsets,
            lifetime: 1000,
            now: NOW,
            stamp: STAMP,
            integrity: Integrity::Whole,
        };
        assert!(!matches!(cache.insert(&key, key.hash(), new, |_| false), Insertion::Refused(_)));
        let aged: Vec<u32> = ttls.iter().map(|ttl| ttl - 10).collect();
        assert_eq!(ask(&cache, &key, NOW + 10).1, response(&key, &aged, 9, 4).0, "{count} records");
    }
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

#[test]
fn an_entry_that_is_asked_for_outlives_those_that_are_not() {
    let cache = Cache::new(64 << 10);
    let (asked, idle) = (name("asked.example"), name("idle.example"));
    put(&cache, &key(&asked), 60, 1);
    put(&cache, &key(&idle), 60, 1);
    for index in 0..20_000 {
        let other = name(&format!("n{index}.example"));
        assert_eq!(put(&cache, &key(&other), 60, 2), Insertion::Stored);
        assert!(index % 50 != 0 || is_hit(&cache, &key(&asked)), "gone after {index}");
    }
    assert!(!is_hit(&cache, &key(&idle)));
    let stats = cache.stats();
    assert!(stats.bytes <= stats.capacity && stats.bytes > stats.capacity * 8 / 10, "{stats:?}");
    assert_eq!(stats.inserts, 20_002);
    assert_eq!(stats.evictions, stats.inserts - u64::try_from(stats.entries).unwrap());
}

#[test]
fn one_insertion_moves_a_bounded_number_of_entries() {
    let cache = Cache::new(64 << 10);
    let mut names = Vec::new();
    while cache.stats().evictions == 0 {
        names.push(name(&format!("n{}.example", names.len())));
        put(&cache, &key(names.last().unwrap()), 60, 1);
    }
    let kept = names.iter().filter(|name| is_hit(&cache, &key(name))).count();
    assert_eq!(kept, cache.stats().entries);
    let before = cache.stats().evictions;
    put(&cache, &key(&name("last.example")), 60, 1);
    assert!(is_hit(&cache, &key(&name("last.example"))));
    assert_eq!(cache.stats().evictions, before + 1, "everything was asked for; one goes all the same");
    // Those passed over were the oldest, and lost their mark; the one after them went.
    let gone = names.iter().position(|name| cache_index(&cache, name).is_none() && names[0] != *name);
    assert_eq!(gone.map(|index| index - 1), Some(MOVES));
}

fn cache_index(cache: &Cache, name: &Name) -> Option<usize> {
    let (mut index, mut place) = (0, None);
    cache.for_each(|entry| {
        if entry.key == key(name) {
            place = Some(index);
        }
        index += 1;
    });
    place
}

#[test]
fn protected_entries_go_last() {
    let cache = Cache::new(64 << 10);
    let stamp = |rule| Stamp { rule, ..STAMP };
    let put = |text: &str, rule| {
        let name = name(text);
        let (message, ttl_offsets) = response(&key(&name), &[60], 1, 4);
        let new = New {
            message: &message,
            ttl_offsets: &ttl_offsets,
            lifetime: 60,
            now: NOW,
            stamp: stamp(rule),
            integrity: Integrity::Whole,
        };
        cache.insert(&key(&name), key(&name).hash(), new, |stamp| stamp.rule == 1);
    };
    for index in 0..200 {
        put(&format!("kept{index}.example"), 1);
        put(&format!("other{index}.example"), 2);
    }
    for index in 0..5000 {
        put(&format!("new{index}.example"), 2);
    }
    let kept = (0..200).filter(|index| is_hit(&cache, &key(&name(&format!("kept{index}.example"))))).count();
    assert_eq!(kept, 200);
}

#[test]
fn names_and_domains_are_removed_with_all_their_types() {
    let cache = Cache::new(4 << 20);
    let names = ["example", "a.example", "b.a.example", "notexample", "aexample."].map(name);
    for name in &names {
        for qtype in [RecordType::A, RecordType::AAAA] {
            put(&cache, &CacheKey { qtype, ..key(name) }, 60, 1);
        }
    }
    assert_eq!(cache.remove(&key(&names[3])), 1);
    assert_eq!(cache.remove(&key(&names[3])), 0);
    assert_eq!(cache.remove_name(names[0].as_wire()), 2);
    assert_eq!(cache.remove_domain(names[1].as_wire()), 4);
    assert_eq!(cache.stats().entries, 3);
    assert!(!is_hit(&cache, &key(&names[2])) && is_hit(&cache, &key(&names[4])));
    cache.clear();
    assert_eq!(cache.stats().entries, 0);
    assert!(!is_hit(&cache, &key(&names[4])));
    assert_eq!(put(&cache, &key(&names[0]), 60, 1), Insertion::Stored);
    assert!(is_hit(&cache, &key(&names[0])));
}

#[test]
fn without_a_size_everything_is_a_miss() {
    for size in [0, 1, 100, 600] {
        let (cache, name) = (Cache::new(size), name("a.example"));
        assert_eq!(put(&cache, &key(&name), 60, 1), Insertion::Refused(Refusal::NoCache));
        assert_eq!(ask(&cache, &key(&name), NOW).0, Lookup::Miss);
        assert_eq!(cache.stale(&key(&name), key(&name).hash(), NOW, 1, DAY, &mut [], |_, _| None), None);
        assert_eq!((cache.remove(&key(&name)), cache.remove_name(b"\0"), cache.remove_domain(b"\0")), (0, 0, 0));
        cache.clear();
        cache.for_each(|entry| panic!("{entry:?}"));
        assert_eq!((cache.stats().entries, cache.stats().bytes), (0, 0));
    }
}

#[test]
fn threads_never_see_a_message_that_was_not_stored_as_it_is() {
    let cache = Cache::new(2 << 20);
    let names: Vec<Name> = (0..3000).map(|index| name(&format!("n{index}.example"))).collect();
    thread::scope(|scope| {
        for thread in 0_u8..4 {
            let (cache, names) = (&cache, &names);
            scope.spawn(move || {
                for step in 0..20_000_usize {
                    let name = &names[step * (7 + usize::from(thread)) % names.len()];
                    let length = u16::try_from(step % 900).unwrap();
                    match step % 16 {
                        0 => cache.remove(&key(name)),
                        1..6 => usize::from(put_sized(cache, &key(name), 60, thread, length, NOW) == Insertion::Stored),
                        _ => 0,
                    };
                    let (lookup, reply) = ask(cache, &key(name), NOW);
                    let Lookup::Hit(found) = lookup else { continue };
                    let fill = *reply.last().unwrap();
                    let data = u16::try_from(found.length - 12 - name.as_wire().len() - 4 - 12).unwrap();
                    assert!(data == 0 || reply == response(&key(name), &[60], fill, data).0);
                }
            });
        }
    });
    let stats = cache.stats();
    assert!(stats.entries > 200 && stats.bytes <= stats.capacity, "{stats:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Insert { index: usize, lifetime: u32, length: u16 },
    Get(usize),
    Remove(usize),
    Wait(u32),
    RemoveDomain(usize),
    Clear,
}

fn step(names: usize, longest: u16) -> impl Strategy<Value = Step> {
    prop_oneof![
        100 => (0..names, 1_u32..100, 0..longest)
            .prop_map(|(index, lifetime, length)| Step::Insert { index, lifetime, length }),
        100 => (0..names).prop_map(Step::Get),
        10 => (0..names).prop_map(Step::Remove),
        5 => (1_u32..20).prop_map(Step::Wait),
        1 => (0..names).prop_map(Step::RemoveDomain),
        1 => Just(Step::Clear),
    ]
}

/// Runs the steps beside a map. The cache may forget; it may not make up, mix up or outlive anything.
fn run_beside_a_model(capacity: usize, steps: &[Step]) -> Result<(), TestCaseError> {
    let cache = Cache::new(capacity);
    let names: Vec<Name> = (0..400).map(|index| name(&format!("n{index}.d{}.example", index % 7))).collect();
    let mut model: HashMap<usize, (u8, u16, u32, u32)> = HashMap::new();
    let mut now = NOW;
    for (fill, step) in (0..=u8::MAX).cycle().zip(steps) {
        match *step {
            Step::Insert { index, lifetime, length } => {
                let insertion = put_sized(&cache, &key(&names[index]), lifetime, fill, length, now);
                if insertion != Insertion::Refused(Refusal::TooLarge) {
                    model.insert(index, (fill, length, now, lifetime));
                    let (_, reply) = ask(&cache, &key(&names[index]), now);
                    prop_assert_eq!(reply, response(&key(&names[index]), &[lifetime], fill, length).0);
                }
            }
            Step::Get(index) => match (ask(&cache, &key(&names[index]), now), model.get(&index)) {
                ((Lookup::Miss, _), _) => {}
                ((Lookup::Expired(_), _), Some((_, _, at, lifetime))) => prop_assert!(now - at >= *lifetime),
                ((Lookup::Hit(_), reply), Some(&(fill, length, at, lifetime))) => {
                    prop_assert!(now - at < lifetime);
                    prop_assert_eq!(reply, response(&key(&names[index]), &[lifetime - (now - at)], fill, length).0);
                }
                (other, _) => prop_assert!(false, "{:?}", other.0),
            },
            Step::Remove(index) => {
                cache.remove(&key(&names[index]));
                model.remove(&index);
            }
            Step::Wait(seconds) => now += seconds,
            Step::RemoveDomain(index) => {
                cache.remove_domain(name(&format!("d{}.example", index % 7)).as_wire());
                model.retain(|&other, _| other % 7 != index % 7);
            }
            Step::Clear => {
                cache.clear();
                model.clear();
            }
        }
        let stats = cache.stats();
        prop_assert!(stats.bytes <= capacity && stats.entries <= model.len(), "{:?}", stats);
    }
    let mut shown = 0;
    cache.for_each(|entry| {
        let index = names.iter().position(|name| key(name) == entry.key).unwrap();
        let (fill, length, at, lifetime) = model[&index];
        assert_eq!(entry.message, response(&entry.key, &[lifetime], fill, length).0);
        assert_eq!((entry.stored_at, entry.lifetime), (at, lifetime));
        shown += 1;
    });
    prop_assert_eq!(shown, cache.stats().entries);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_ring_of_one_stretch_agrees_with_a_map(steps in prop::collection::vec(step(200, 300), 1..600)) {
        run_beside_a_model(12 << 10, &steps)?;
    }

    #[test]
    fn a_ring_of_many_stretches_agrees_with_a_map(steps in prop::collection::vec(step(400, 9000), 1..400)) {
        run_beside_a_model(300 << 10, &steps)?;
    }

    #[test]
    fn a_full_table_agrees_with_a_map(steps in prop::collection::vec(step(400, 2), 1..1500)) {
        run_beside_a_model(4 << 10, &steps)?;
    }
}
