//! What is stored, replaced or refused.

use tidegate::cache::{Cache, CacheKey, Insertion, Integrity, Lookup, New, Refusal};

use crate::{DAY, NOW, STAMP, ask, key, name, put, put_sized, response};

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
fn entries_that_could_not_be_read_back_are_refused() {
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
