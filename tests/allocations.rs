//! A hit allocates nothing, whatever its manner; nor does a refusal.

#[path = "../benches/support/mod.rs"]
mod support;

use support::{Bench, Manner, names, query};
use tidegate::engine::Action;

#[test]
fn a_hit_allocates_nothing() {
    let names = names(1000);
    let bench = Bench::with_names(&names);
    let mut reply = vec![0; 1232];
    for manner in [Manner::Plain, Manner::Edns, Manner::MixedCase] {
        let queries: Vec<_> = names.iter().map(|name| query(name, manner)).collect();
        let counted = allocation_counter::measure(|| {
            for query in &queries {
                assert!(matches!(bench.handle(query, &mut reply), Action::Reply(_)), "the cache has it");
            }
        });
        assert_eq!(counted.count_total, 0, "{manner:?}: {counted:?}");
    }
}

#[test]
fn a_miss_is_seen_by_the_counter() {
    let bench = Bench::with_names(&[]);
    let mut reply = vec![0; 1232];
    let query = query(&names(1)[0], Manner::Edns);
    let counted = allocation_counter::measure(|| {
        assert!(matches!(bench.handle(&query, &mut reply), Action::Resolve(_)), "nobody has it");
    });
    assert!(counted.count_total > 0, "a question that waits is owned: {counted:?}");
}
