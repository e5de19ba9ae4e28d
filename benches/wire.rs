//! What the wire room costs: reading a query, reading an upstream's answer and writing it anew, making a reply of a
//! stored message, writing a query to an upstream.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidegate::wire::{
    Class, Flags, Header, MessageId, Question, RecordType, Response, Ttl, UpstreamQuery,
    record::Section,
    reply::{self, Space},
    splice,
    writer::Writer,
};

const ID: MessageId = MessageId(0x1234);
const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";

fn query(name: &str) -> UpstreamQuery {
    UpstreamQuery { name: name.parse().unwrap(), qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false }
}

/// An upstream's response: the aliases in order, `addresses` A records at the last, and an OPT record.
fn response(query: &UpstreamQuery, aliases: &[&str], addresses: u16) -> Vec<u8> {
    let mut writer = Writer::new(query.name.as_wire(), query.qtype, query.qclass, 512);
    let ttl = Ttl::from_wire(60);
    let mut owner = query.name.clone();
    for alias in aliases {
        let target: tidegate::wire::Name = alias.parse().unwrap();
        let (section, rtype) = (Section::Answer, RecordType::CNAME);
        writer.plain(section, owner.as_wire(), rtype, Class::IN, ttl, target.as_wire()).unwrap();
        owner = target;
    }
    for number in 0..addresses {
        let [high, low] = number.to_be_bytes();
        let rdata = [10, 20, high, low];
        writer.plain(Section::Answer, owner.as_wire(), RecordType::A, Class::IN, ttl, &rdata).unwrap();
    }
    let flags = Flags(Flags::QR | Flags::RA | Flags::RD);
    let mut message = writer.finish(Header { id: ID, flags, counts: [0; 4] });
    message[11] += 1;
    message.extend_from_slice(OPT);
    message
}

fn questions(c: &mut Criterion) {
    let mut group = c.benchmark_group("question_read");
    group.throughput(Throughput::Elements(1));
    let query = query("dynamodb.eu-central-1.amazonaws.com");
    let mut buffer = [0; UpstreamQuery::MAX];
    for (case, payload) in [("plain", None), ("edns", Some(1232))] {
        let length = query.write(ID, payload, None, &mut buffer).unwrap();
        let message = buffer[..length].to_vec();
        group.bench_function(case, |b| b.iter(|| Question::read(black_box(&message)).unwrap().name().len()));
    }
    group.finish();
}

fn responses(c: &mut Criterion) {
    let mut group = c.benchmark_group("response_read");
    group.throughput(Throughput::Elements(1));
    let query = query("files.corp.example");
    let chain: [&str; 3] = [
        "storage.corp.example",
        "bucket.vpce-0a1b2c3d.s3.eu-central-1.vpce.amazonaws.com",
        "vpce-0a1b2c3d.s3.eu-central-1.vpce.amazonaws.com",
    ];
    for (case, aliases, addresses) in [("one_a", &[][..], 1), ("three_cnames_four_a", &chain, 4), ("forty_a", &[], 40)]
    {
        let message = response(&query, aliases, addresses);
        group.bench_function(case, |b| {
            b.iter(|| Response::read(black_box(&message), black_box(&query), ID, None).unwrap());
        });
    }
    group.finish();
}

/// The longest chains that are followed: what a hostile upstream's answer costs at most.
fn hostile_responses(c: &mut Criterion) {
    let mut group = c.benchmark_group("response_hostile");
    group.throughput(Throughput::Elements(1));
    let query = query("www.example");
    // A DNAME that makes each name longer, until it is too long: one record in, a CNAME for each step out.
    let mut writer = Writer::new(query.name.as_wire(), query.qtype, query.qclass, 512);
    let (section, ttl) = (Section::Answer, Ttl::from_wire(60));
    writer.plain(section, b"\x07example\0", RecordType::DNAME, Class::IN, ttl, b"\x01a\x07example\0").unwrap();
    let flags = Flags(Flags::QR | Flags::RA | Flags::RD);
    let growing = writer.finish(Header { id: ID, flags, counts: [0; 4] });
    // 64 names of 127 labels that differ in their last ones only.
    let front = "a.".repeat(120);
    let names: Vec<String> = (0..64).map(|number| format!("{front}n{number}.example")).collect();
    let alike = response(&query, &names.iter().map(String::as_str).collect::<Vec<_>>(), 1);
    for (case, message) in [("a_dname_that_grows", growing), ("names_that_are_alike", alike)] {
        let read = || Response::read(black_box(&message), black_box(&query), ID, None).unwrap();
        group.bench_function(format!("{case}, read"), |b| b.iter(read));
        let response = read();
        let cut = response.chain().len();
        group.bench_function(format!("{case}, join"), |b| {
            b.iter(|| splice::join(black_box(&response), cut, black_box(&response), &query).is_ok());
        });
    }
    group.finish();
}

fn replies(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply_finish");
    group.throughput(Throughput::Elements(1));
    let query = query("dynamodb.eu-central-1.amazonaws.com");
    let stored = Response::read(&response(&query, &[], 4), &query, ID, None).unwrap();
    let mut buffer = [0; UpstreamQuery::MAX];
    for (case, payload) in [("plain", None), ("edns", Some(1232))] {
        let length = query.write(ID, payload, Some(0x5555_5555_5555_5555), &mut buffer).unwrap();
        let message = buffer[..length].to_vec();
        let question = Question::read(&message).unwrap();
        let space = Space::datagram(question.edns.as_ref(), 1232);
        let length = stored.message().len();
        let mut out = [0; 1232];
        // The copy out of the cache is part of it: `finish` works on the reply's own buffer.
        group.bench_function(case, |b| {
            b.iter(|| {
                out[..length].copy_from_slice(stored.message());
                reply::finish(black_box(&mut out), length, black_box(&question), None, space)
            });
        });
    }
    group.finish();
}

fn upstream_queries(c: &mut Criterion) {
    let mut group = c.benchmark_group("upstream_query_write");
    group.throughput(Throughput::Elements(1));
    let query = query("dynamodb.eu-central-1.amazonaws.com");
    let mut buffer = [0; UpstreamQuery::MAX];
    for (case, seed) in [("lowercase", None), ("mixed_case", Some(0x0123_4567_89ab_cdef))] {
        group.bench_function(case, |b| {
            b.iter(|| black_box(&query).write(ID, Some(1232), seed, black_box(&mut buffer)));
        });
    }
    group.finish();
}

criterion_group!(benches, questions, responses, hostile_responses, replies, upstream_queries);
criterion_main!(benches);
