//! What one message costs inside `Engine::handle`: no sockets, no runtime.
#![allow(missing_docs, reason = "criterion makes the functions")]

mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{Bench, Manner, names, query};
use tidegate::engine::Action;

/// How many names there are to ask for.
const NAMES: usize = 10_000;

fn handle(criterion: &mut Criterion) {
    let names = names(NAMES);
    let bench = Bench::with_names(&names);
    let mut reply = vec![0; 1232];
    let mut group = criterion.benchmark_group("handle");
    group.throughput(Throughput::Elements(1));
    for (title, manner) in
        [("hit, plain", Manner::Plain), ("hit, EDNS", Manner::Edns), ("hit, mixed case", Manner::MixedCase)]
    {
        let query = query(&names[0], manner);
        group.bench_function(title, |bencher| {
            bencher.iter(|| {
                let action = bench.handle(black_box(&query), &mut reply);
                assert!(matches!(action, Action::Reply(_)), "the cache has it");
            });
        });
    }
    let queries: Vec<_> = zipf().map(|rank| query(&names[rank], Manner::Edns)).collect();
    let mut turn = queries.iter().cycle();
    group.bench_function("hit, Zipf over 10,000", |bencher| {
        bencher.iter(|| {
            let query = turn.next().expect("a cycle has no end");
            assert!(matches!(bench.handle(query, &mut reply), Action::Reply(_)), "the cache has it");
        });
    });
    let unknown = query(&"unknown.example.org".parse().expect("it is a name"), Manner::Edns);
    group.bench_function("miss", |bencher| {
        bencher.iter(|| assert!(matches!(bench.handle(&unknown, &mut reply), Action::Resolve(_)), "nobody has it"));
    });
    let mut chaos = query(&names[0], Manner::Edns);
    let qclass = chaos.len() - 12;
    chaos[qclass] = 3;
    group.bench_function("refusal", |bencher| {
        bencher.iter(|| assert!(matches!(bench.handle(&chaos, &mut reply), Action::Reply(_)), "class CH is refused"));
    });
    group.finish();
}

/// Ranks as often as 1/n, from a small generator that is the same each time.
fn zipf() -> impl Iterator<Item = usize> {
    let weight: f64 = (1..=NAMES).map(|rank| 1.0 / f64::from(u32::try_from(rank).unwrap_or(u32::MAX))).sum();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..100_000).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut left = f64::from(u32::try_from(state >> 32).unwrap_or(0)) / f64::from(u32::MAX) * weight;
        for rank in 1..=NAMES {
            left -= 1.0 / f64::from(u32::try_from(rank).unwrap_or(u32::MAX));
            if left <= 0.0 {
                return rank - 1;
            }
        }
        NAMES - 1
    })
}

criterion_group!(benches, handle);
criterion_main!(benches);
