//! Which entry goes when there is no room.

use tidegate::{
    cache::{Cache, Insertion, Integrity, MOVES, New, Refusal, Stamp},
    wire::Name,
};

use crate::{NOW, STAMP, is_hit, key, name, put, response};

#[test]
fn an_entry_that_is_asked_for_outlives_those_that_are_not() {
    let cache = Cache::new(64 << 10);
    let (asked, idle) = (name("asked.example"), name("idle.example"));
    put(&cache, &key(&asked), 60, 1);
    put(&cache, &key(&idle), 60, 1);
    for index in 0..20_000 {
        let other = name(&format!("n{index}.as-long-as-most-names-are.example"));
        assert_eq!(put(&cache, &key(&other), 60, 2), Insertion::Stored);
        assert!(index % 50 != 0 || is_hit(&cache, &key(&asked)), "gone after {index}");
    }
    assert!(!is_hit(&cache, &key(&idle)));
    let stats = cache.stats();
    assert!(stats.bytes <= stats.capacity && stats.bytes > stats.capacity * 8 / 10, "{stats:?}");
    assert_eq!(stats.inserts, 20_002);
    assert_eq!(stats.evictions, stats.inserts - u64::try_from(stats.entries).unwrap());
}

/// A full cache of which every entry was asked for, and their names.
fn full_of_asked() -> (Cache, Vec<Name>) {
    let cache = Cache::new(64 << 10);
    let mut names = Vec::new();
    while cache.stats().evictions == 0 {
        names.push(name(&format!("n{:04}.as-long-as-most-names-are.example", names.len())));
        put(&cache, &key(names.last().unwrap()), 60, 1);
    }
    names.retain(|name| is_hit(&cache, &key(name)));
    assert_eq!(names.len(), cache.stats().entries);
    (cache, names)
}

#[test]
fn one_insertion_moves_a_bounded_number_of_entries() {
    let (cache, names) = full_of_asked();
    let before = cache.stats();
    let new = name("last.example");
    assert_eq!(put(&cache, &key(&new), 60, 1), Insertion::Refused(Refusal::NoRoom), "everything was asked for");
    assert_eq!((cache.stats().entries, cache.stats().evictions), (before.entries, before.evictions));
    // Those passed over are the newest now.
    assert_eq!(cache_index(&cache, &names[MOVES]), Some(0));
    let turns = names.len() / MOVES + 1;
    let stored = (1..=turns).find(|_| put(&cache, &key(&new), 60, 1) == Insertion::Stored);
    assert!(stored.is_some(), "once all have lost their mark there is room, after at most {turns} insertions");
    assert_eq!(cache.stats().evictions, before.evictions + 1);
}

/// What clients ask for all the time is there when its upstream fails, whatever was asked for once in the meantime.
#[test]
fn nothing_that_is_asked_for_goes() {
    let cache = Cache::new(64 << 10);
    let hot: Vec<Name> = (0..200).map(|index| name(&format!("hot{index}.example"))).collect();
    hot.iter().for_each(|name| assert_eq!(put(&cache, &key(name), 60, 1), Insertion::Stored));
    let mut stored = 0;
    for index in 0..3_000 {
        assert!(hot.iter().all(|name| is_hit(&cache, &key(name))), "one is gone after {index}");
        stored += u32::from(put(&cache, &key(&name(&format!("n{index}.example"))), 60, 2) == Insertion::Stored);
    }
    assert!(stored > 2_000, "{stored}");
}

#[test]
fn what_is_renewed_has_room_in_any_case() {
    let (cache, names) = full_of_asked();
    let renewed = &names[names.len() / 2];
    let (message, ttl_offsets) = response(&key(renewed), &[60, 60, 60], 1, 4);
    let new = New {
        message: &message,
        ttl_offsets: &ttl_offsets,
        lifetime: 60,
        now: NOW,
        stamp: STAMP,
        integrity: Integrity::Whole,
    };
    names.iter().for_each(|name| assert!(is_hit(&cache, &key(name))));
    assert_eq!(cache.insert(&key(renewed), key(renewed).hash(), new, |_| false), Insertion::Replaced);
    assert!(is_hit(&cache, &key(renewed)));
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
