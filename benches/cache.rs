//! What the cache costs: hits, misses, insertions. A name is 58 octets with one A record, as in `tests/cache_memory.rs`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tidegate::{
    cache::{Cache, CacheKey, Insertion, Integrity, Lookup, New, Stamp},
    wire::{Class, RecordType},
};

const NAME: &[u8; 58] = b"\x0dhost-00000000\x07service\x0adepartment\x0bcorporation\x07example\x03net\0";
const STAMP: Stamp = Stamp { generation: 1, fingerprint: 1, rule: 1 };
const NOW: u32 = 1;
const DRAWS: usize = 1 << 16;

/// A question's name as it lies in a datagram just read: hot, unlike the cache's.
struct Asker {
    message: Vec<u8>,
}

impl Asker {
    fn new() -> Self {
        let mut message = b"\0\0\x81\x80\0\x01\0\x01\0\0\0\0".to_vec();
        message.extend(NAME);
        message.extend(b"\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\x0a\x14\x01\x0a");
        Self { message }
    }

    fn name(&mut self, mut index: usize) {
        for digit in self.message[18..26].iter_mut().rev() {
            *digit = b'0' + u8::try_from(index % 10).unwrap();
            index /= 10;
        }
    }

    fn key(&self) -> CacheKey<'_> {
        let name = &self.message[12..70];
        CacheKey { name, qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false, view: 0 }
    }

    fn insert(&mut self, cache: &Cache, index: usize) -> Insertion {
        self.name(index);
        let new = New {
            message: &self.message,
            ttl_offsets: &[80],
            lifetime: 3600,
            now: NOW,
            stamp: STAMP,
            integrity: Integrity::Whole,
        };
        cache.insert(&self.key(), self.key().hash(), new, |_| false)
    }

    fn get(&mut self, cache: &Cache, index: usize, reply: &mut [u8]) -> Lookup {
        self.name(index);
        let key = self.key();
        cache.get(&key, key.hash(), NOW + 10, 1, reply, |_, stamp| Some(stamp))
    }
}

fn filled(names: usize) -> Cache {
    let cache = Cache::new(128 << 20);
    let mut asker = Asker::new();
    for index in 0..names {
        assert_eq!(asker.insert(&cache, index), Insertion::Stored);
    }
    assert_eq!(cache.stats().entries, names);
    cache
}

/// Numbers below `names`, the popular ones as popular as Zipf's law has it.
fn zipf(names: u32) -> Vec<usize> {
    let mut sum = 0.0;
    let bounds: Vec<f64> = (1..=names)
        .map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        })
        .collect();
    let mut random = StdRng::seed_from_u64(1);
    (0..DRAWS).map(|_| bounds.partition_point(|&bound| bound < random.random::<f64>() * sum)).collect()
}

fn even(names: usize) -> Vec<usize> {
    let mut random = StdRng::seed_from_u64(2);
    (0..DRAWS * 8).map(|_| random.random_range(0..names)).collect()
}

fn get(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    let cases = [
        ("hit/one_name", 1, vec![0]),
        ("hit/zipf_10000", 10_000, zipf(10_000)),
        ("hit/even_500000", 500_000, even(500_000)),
        ("miss/even_500000", 500_000, even(500_000).into_iter().map(|index| index + 500_000).collect()),
    ];
    for (case, names, draws) in cases {
        let (cache, mut asker, mut reply) = (filled(names), Asker::new(), [0; 1232]);
        let is_hit = case.starts_with("hit");
        let mut draws = draws.into_iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(case), |bencher| {
            bencher.iter(|| {
                let lookup = asker.get(&cache, draws.next().unwrap(), black_box(&mut reply));
                assert_eq!(matches!(lookup, Lookup::Hit(_)), is_hit);
            });
        });
    }
    group.finish();
}

fn hash(criterion: &mut Criterion) {
    let mut asker = Asker::new();
    let mut index = 0;
    criterion.bench_function("hash/58_octets_and_naming", |bencher| {
        bencher.iter(|| {
            index += 1;
            asker.name(index);
            black_box(asker.key().hash())
        });
    });
}

fn insert(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("insert");
    group.throughput(Throughput::Elements(1));
    for (case, size) in [("evicting/1MiB", 1 << 20), ("evicting/128MiB", 128 << 20)] {
        let (cache, mut asker, mut index) = (Cache::new(size), Asker::new(), 0);
        while cache.stats().bytes < size * 95 / 100 {
            for _ in 0..20_000 {
                index += 1;
                asker.insert(&cache, index);
            }
        }
        group.bench_function(BenchmarkId::from_parameter(case), |bencher| {
            bencher.iter(|| {
                index += 1;
                assert_eq!(asker.insert(&cache, index), Insertion::Stored);
            });
        });
    }
    let (cache, mut asker) = (filled(10_000), Asker::new());
    let mut index = 0;
    group.bench_function("replacing/10000", |bencher| {
        bencher.iter(|| {
            index = (index + 7919) % 10_000;
            assert_eq!(asker.insert(&cache, index), Insertion::Replaced);
        });
    });
    group.finish();
}

criterion_group!(benches, hash, get, insert);
criterion_main!(benches);
