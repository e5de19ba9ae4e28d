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
        assert!(index % 2 != 0 || is_hit(&cache, &key(&other)), "every other one is asked for");
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
    let passed_over = names.iter().position(|name| cache_index(&cache, name) == Some(0));
    assert!(passed_over.is_some_and(|count| (1..=MOVES).contains(&count)), "{passed_over:?}");
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

/// Names that are asked for now and then stay while names that are never asked for again pass by.
#[test]
fn a_flood_does_not_push_out_what_a_site_uses() {
    let cache = Cache::new(64 << 10);
    let site: Vec<Name> = (0..200).map(|index| name(&format!("site{index}.example"))).collect();
    let mut floods = (0..).map(|index| name(&format!("flood{index}.example")));
    let mut missed = Vec::new();
    for _ in 0..10 {
        let missing: Vec<&Name> = site.iter().filter(|name| !is_hit(&cache, &key(name))).collect();
        missing.iter().for_each(|name| assert_eq!(put(&cache, &key(name), 60, 1), Insertion::Stored));
        missed.push(missing.len());
        floods.by_ref().take(3_000).for_each(|name| assert_eq!(put(&cache, &key(&name), 60, 2), Insertion::Stored));
    }
    // One in some thousand names of the flood is taken for one that was asked for before, by its fingerprint.
    assert!(missed[0] == 200 && missed[1..].iter().all(|&misses| misses <= 20), "misses, round by round: {missed:?}");
}

/// A name that comes again soon after it was given up is one that is used.
#[test]
fn what_is_asked_for_again_soon_passes() {
    let (cache, names) = full_of_asked();
    let mut others = (0..).map(|index| name(&format!("other{index}.example")));
    // All marks are lost after so many.
    for name in others.by_ref().take(names.len()) {
        put(&cache, &key(&name), 60, 2);
    }
    let again: Vec<Name> = (0..20).map(|index| name(&format!("again{index}.example"))).collect();
    let mut ask_all = || {
        for name in again.iter().cloned().chain(others.by_ref().take(200)) {
            put(&cache, &key(&name), 60, 2);
        }
        again.iter().filter(|name| is_hit(&cache, &key(name))).count()
    };
    assert_eq!(ask_all(), 0, "nobody asked for them on probation");
    let passed = ask_all();
    // Some were forgotten: another name has their place in the table.
    assert!(passed >= 10, "{passed} of 20 passed");
}

#[test]
fn what_was_removed_leaves_its_room_to_what_is_new() {
    let cache = Cache::new(64 << 10);
    let mut old = 0;
    while cache.stats().evictions == 0 {
        put(&cache, &key(&name(&format!("n{old:04}.old.example"))), 60, 1);
        old += 1;
    }
    assert!(cache.remove_domain(name("old.example").as_wire()) > 100);
    let new: Vec<Name> = (0..old * 3 / 4).map(|index| name(&format!("n{index:04}.new.example"))).collect();
    new.iter().for_each(|name| assert_eq!(put(&cache, &key(name), 60, 2), Insertion::Stored));
    let there = new.iter().filter(|name| is_hit(&cache, &key(name))).count();
    assert_eq!((there, cache.stats().evictions), (new.len(), 1));
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
