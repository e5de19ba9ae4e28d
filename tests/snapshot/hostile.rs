//! A file with right checksums may still be forged: no entry of it leads to an answer that an upstream could not give.

use std::fs;

use tidegate::{
    cache::{
        EntryView, Stamp,
        snapshot::{SavedEntry, SnapshotReader, SnapshotWriter},
    },
    wire::header::HEADER,
};

use crate::{
    restart::{Place, kill, save},
    support::{
        config::{Config, ONE_PATIENT_TRY},
        query::{Query, flag, rtype},
        records::{Record, Reply},
        tidegate::Tidegate,
        upstream::Upstream,
    },
};

const NAME: &str = "www.example.";
const TTL: u32 = 1000;

/// What a forger may write of an entry.
#[derive(Debug, Clone)]
struct Forged {
    message: Vec<u8>,
    ttl_offsets: Vec<u16>,
    lifetime: u32,
    age: u32,
}

/// A forgery, and what it is called.
type Case<'a> = (&'a str, &'a dyn Fn(&mut Forged));

/// The file again, its checksums right, with every entry changed.
fn forge(file: &[u8], change: &dyn Fn(&mut Forged)) -> Vec<u8> {
    let reader = SnapshotReader::begin(file).unwrap();
    let mut writer = SnapshotWriter::begin(Vec::new(), 1, reader.header()).unwrap();
    let forge = |saved: &SavedEntry<'_>, ttl_offsets: &[u16]| {
        let SavedEntry { key, message, age, lifetime, rule, fingerprint, integrity } = *saved;
        let mut forged = Forged { message: message.to_vec(), ttl_offsets: ttl_offsets.to_vec(), lifetime, age };
        change(&mut forged);
        let entry = EntryView {
            key,
            message: &forged.message,
            ttl_offsets: &forged.ttl_offsets,
            stored_at: 0,
            lifetime: forged.lifetime,
            stamp: Stamp { generation: 0, fingerprint, rule },
            integrity,
        };
        writer.push(&entry, forged.age);
    };
    assert_eq!(reader.read(forge).unwrap(), 1);
    writer.finish().unwrap().0
}

/// Starts with a forged file, asks for its name, and gives the TTL and how often upstream was asked meanwhile. The answer
/// must be the true one, from wherever it came.
fn asked_with(case: &str, settings: &str, change: &dyn Fn(&mut Forged)) -> (u32, usize) {
    let (place, upstream) = (Place::new(), Upstream::start());
    upstream.on_type(rtype::A, Reply::of([Record::a("@", TTL, "10.0.0.1")]));
    let config = |settings: &str| {
        Config::new()
            .section("cache", &format!("{}\n{settings}", place.cache()))
            .upstream("vpc", &[&upstream], ONE_PATIENT_TRY)
            .forward("all", &["."], "vpc", "")
    };
    let tidegate = Tidegate::start(&config(""));
    tidegate.client().ask(&Query::a(NAME));
    save(&tidegate, &place);
    kill(tidegate);
    let file = forge(&fs::read(place.path()).unwrap(), change);
    fs::write(place.path(), file).unwrap();

    let tidegate = Tidegate::start(&config(settings));
    let query = Query::a(NAME).edns();
    let socket = tidegate.client().socket();
    socket.send(&query);
    let answer = socket.receive();
    assert!(answer.has(flag::QR) && answer.has(flag::RA) && !answer.truncated(), "{case}");
    assert!(answer.repeats(&query), "{case}");
    assert_eq!(answer.address_texts(), ["10.0.0.1"], "{case}");
    (answer.ttl(), upstream.count(NAME) - 1)
}

/// Where the answer's record begins: behind header, name, type and class.
const RECORD: usize = HEADER + 13 + 4;

#[test]
fn entries_that_do_not_answer_their_question_are_left_out() {
    let cases: [Case<'_>; 9] = [
        ("a query", &|forged| forged.message[2] &= 0x7f),
        ("another opcode", &|forged| forged.message[2] |= 0x28),
        ("truncated", &|forged| forged.message[2] |= 0x02),
        ("a failure", &|forged| forged.message[3] |= 2),
        ("a record that is not there", &|forged| forged.message[7] = 2),
        ("a record that ends early", &|forged| forged.message.truncate(RECORD + 14)),
        ("RDATA longer than the message", &|forged| forged.message[RECORD + 11] = 5),
        ("an owner that points to itself", &|forged| forged.message[RECORD + 1] = u8::try_from(RECORD).unwrap()),
        ("a TTL of 0", &|forged| forged.message[RECORD + 6..RECORD + 10].fill(0)),
    ];
    for (case, change) in cases {
        assert_eq!(asked_with(case, "", change).1, 1, "{case}: upstream is asked again");
    }
}

#[test]
fn ttl_offsets_are_read_from_the_message() {
    let cases: [Case<'_>; 2] = [
        ("in the address", &|forged| forged.ttl_offsets = vec![u16::try_from(RECORD + 12).unwrap()]),
        ("nowhere", &|forged| forged.ttl_offsets.clear()),
    ];
    for (case, change) in cases {
        // So old that a TTL that is not counted down shows.
        let aged = |forged: &mut Forged| {
            change(forged);
            forged.age = 600;
        };
        let (ttl, asked) = asked_with(case, "", &aged);
        assert_eq!(asked, 0, "{case}: the entry itself is sound");
        assert!((300..=400).contains(&ttl), "{case}: {ttl}");
    }
}

#[test]
fn flags_are_what_we_write() {
    let (_, asked) = asked_with("RA clear, AA and Z set", "", &|forged| {
        forged.message[2] |= 0x04;
        forged.message[3] = forged.message[3] & 0x7f | 0x40;
    });
    assert_eq!(asked, 0);
}

#[test]
fn no_entry_lives_longer_than_its_records_and_the_limits_allow() {
    let for_ever = |forged: &mut Forged| forged.lifetime = u32::MAX;
    let past_its_ttl = |forged: &mut Forged| {
        forged.lifetime = u32::MAX;
        forged.age = TTL + 1;
    };
    assert_eq!(asked_with("past its records", "", &past_its_ttl).1, 1);
    let (ttl, asked) = asked_with("another limit", "max_ttl = \"5m\"", &for_ever);
    assert_eq!(asked, 0);
    assert!((200..=300).contains(&ttl), "{ttl}");
    let past_the_limit = |forged: &mut Forged| {
        forged.lifetime = u32::MAX;
        forged.age = 301;
    };
    assert_eq!(asked_with("past another limit", "max_ttl = \"5m\"", &past_the_limit).1, 1);
}
