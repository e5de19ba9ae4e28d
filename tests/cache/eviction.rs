//! Which entry goes when there is no room.

use tidegate::{
    cache::{Cache, Insertion, Integrity, MOVES, New, Stamp},
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
