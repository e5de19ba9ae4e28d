//! Names and domains that are removed.

use tidegate::{
    cache::{Cache, CacheKey, Insertion},
    wire::RecordType,
};

use crate::{is_hit, key, name, put};

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
