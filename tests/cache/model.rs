//! The cache beside a map, over random steps, and under several threads.

use std::{collections::HashMap, thread};

use proptest::prelude::*;
use tidegate::{
    cache::{Cache, Insertion, Lookup, Refusal},
    wire::Name,
};

use crate::{NOW, ask, key, name, put_sized, response};

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
                if !matches!(insertion, Insertion::Refused(Refusal::TooLarge | Refusal::NoRoom)) {
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
