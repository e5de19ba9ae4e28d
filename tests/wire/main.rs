//! The wire room held against two other implementations, and against octets of every kind.

#![allow(clippy::unwrap_used, reason = "a test")]

mod generate;
mod opinion;

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*, sample::Index};
use tidegate::wire::{
    Class, Ede, EdeCode, Edns, Header, Malformed, MessageId, Name, NameBuf, Question, Rcode, RecordType, Reject,
    Response, ResponseKind, UpstreamQuery,
    addresses::find_address,
    name,
    record::Records,
    reply::{self, Space},
    splice,
};

use crate::{
    generate::{ID, Scene, long_scene, plain_scene, scene, wire},
    opinion::{Depth, Reading, domain, hickory, is_read_to_the_end},
};

fn read(octets: &[u8], query: &UpstreamQuery) -> Option<Response> {
    Response::read(octets, query, MessageId(ID), None).ok()
}

/// Everything that is done to an accepted response somewhere in this server.
fn use_up(response: &Response, query: &UpstreamQuery) {
    let _ = find_address(response.message(), |_| None::<()>);
    let mut clamped = response.clone();
    clamped.map_ttls(|ttl| ttl.clamp(tidegate::wire::Ttl::from_wire(5), tidegate::wire::Ttl::from_wire(60)));
    for cut in 0..=response.chain().len() {
        let _ = splice::join(response, cut, response, query);
    }
    let _ = splice::retain(response, query, |_, record| record.rtype == RecordType::CNAME);
    let _ = splice::retain(response, query, |_, _| false);
}

/// The reply to `question` in a buffer of `size` octets, as the server makes it.
fn reply(response: &Response, question: &Question<'_>, space: Space, size: usize) -> Vec<u8> {
    let mut out = vec![0; size];
    let message = response.message();
    let length = if message.len() > size {
        reply::truncated(&mut out, question, response.rcode(), space)
    } else {
        out[..message.len()].copy_from_slice(message);
        reply::finish(&mut out, message.len(), question, Some(Ede::bare(EdeCode::StaleAnswer)), space)
    };
    out.truncate(length);
    out
}

fn client_query(query: &UpstreamQuery, payload: Option<u16>, case_seed: u64) -> Vec<u8> {
    let mut out = [0; UpstreamQuery::MAX];
    let length = query.write(MessageId(99), payload, Some(case_seed), &mut out).unwrap();
    out[..length].to_vec()
}

fn both(octets: &[u8]) -> Result<(Reading, Reading), TestCaseError> {
    let first = domain(octets, Depth::All).map_err(|error| TestCaseError::fail(format!("domain: {error}")))?;
    let second = hickory(octets).map_err(|error| TestCaseError::fail(format!("hickory: {error}")))?;
    Ok((first, second))
}

#[test]
fn pointers_stay_within_their_reach_in_long_answers() {
    let label = |text: String| text.into_bytes();
    let target = |n| vec![label(format!("host-{n}")), label(format!("Zone-{}", n % 300)), label("example".into())];
    let scene = long_scene(RecordType::PTR, (0..1500).map(target));
    let response = read(&scene.octets, &scene.query).unwrap();
    assert!(response.message().len() > 0x8000);
    for reading in [domain(response.message(), Depth::All).unwrap(), hickory(response.message()).unwrap()] {
        assert_eq!(reading.lines.len(), 1500);
        assert_eq!(reading.set(), scene.expected());
    }
}

#[test]
fn a_message_too_long_when_rewritten_is_refused() {
    // Four hundred pointers to one long name come in, and where RFC 3597 forbids them, four hundred names would go out.
    let scene = long_scene(RecordType::SRV, (0..400).map(|_| vec![vec![b'l'; 63]; 3]));
    assert!(scene.octets.len() < 0x4000);
    let result = Response::read(&scene.octets, &scene.query, MessageId(ID), None);
    assert_eq!(result.err(), Some(Malformed::TooLong.into()));
}

proptest! {
    #[test]
    fn kept_records_read_the_same_in_every_parser(scene in scene()) {
        domain(&scene.octets, Depth::Names).map_err(TestCaseError::fail)?;
        let Scene { query, .. } = &scene;
        let response = Response::read(&scene.octets, query, MessageId(ID), None).unwrap();
        prop_assert!(response.is_answer());
        prop_assert_eq!(response.kind() == ResponseKind::Positive, scene.has_data);
        prop_assert_eq!(response.chain().len(), scene.links);
        prop_assert_eq!(response.has_edns(), scene.has_opt);
        let (first, second) = both(response.message())?;
        let question = Some((query.name.as_wire().to_vec(), query.qtype.0, query.qclass.0));
        for (who, reading) in [("domain", first), ("hickory", second)] {
            prop_assert_eq!(&reading.question, &question, "{}", who);
            prop_assert_eq!(reading.set(), scene.expected(), "{}", who);
            prop_assert_eq!(reading.lines.len(), scene.entries.iter().filter(|e| e.stays).count(), "{}", who);
            prop_assert!(!reading.has_opt);
        }
        use_up(&response, query);
    }

    #[test]
    fn a_chain_is_written_in_its_order(scene in scene()) {
        let response = read(&scene.octets, &scene.query).unwrap();
        let names: Vec<&[u8]> =
            std::iter::once(&scene.query.name).chain(response.chain()).map(Name::as_wire).collect();
        let reading = domain(response.message(), Depth::All).unwrap();
        let owners = reading.lines.iter().filter(|line| line.0 == 0).map(|line| &line.1[..]);
        let places: Vec<usize> = owners.map(|owner| names.iter().position(|name| *name == owner).unwrap()).collect();
        prop_assert!(places.is_sorted(), "{:?}", places);
    }

    #[test]
    fn writing_anew_changes_nothing_more(scene in scene()) {
        let once = read(&scene.octets, &scene.query).unwrap();
        let mut again = once.message().to_vec();
        again[..2].copy_from_slice(&ID.to_be_bytes());
        for twice in [read(&again, &scene.query).unwrap(), Response::ours(once.message(), &scene.query).unwrap()] {
            prop_assert_eq!(twice.message(), once.message());
            prop_assert_eq!(twice.ttl_offsets(), once.ttl_offsets());
            prop_assert_eq!((twice.kind(), twice.rcode(), twice.chain()), (once.kind(), once.rcode(), once.chain()));
            prop_assert_eq!((twice.least_ttl(), twice.negative_ttl()), (once.least_ttl(), once.negative_ttl()));
        }
    }

    #[test]
    fn ttl_offsets_are_where_others_read_ttls(scene in scene()) {
        let response = read(&scene.octets, &scene.query).unwrap();
        let mut message = response.message().to_vec();
        let before = domain(&message, Depth::All).unwrap();
        prop_assert_eq!(before.lines.len(), response.ttl_offsets().len());
        for (ttl, &at) in (1000_u32..).zip(response.ttl_offsets()) {
            message[usize::from(at)..][..4].copy_from_slice(&ttl.to_be_bytes());
        }
        let mut expected = before;
        for (ttl, line) in (1000..).zip(&mut expected.lines) {
            line.4 = ttl;
        }
        prop_assert_eq!(domain(&message, Depth::All).unwrap(), expected);
    }

    #[test]
    fn changed_octets_are_refused_or_read_by_everybody(
        scene in plain_scene(),
        changes in vec((any::<Index>(), 0..8_u32, 0..4_u8), 1..6),
    ) {
        let mut octets = scene.octets.clone();
        for (index, bit, change) in changes {
            if octets.is_empty() {
                break;
            }
            let at = index.index(octets.len());
            match change {
                0 | 1 => octets[at] ^= 1 << bit,
                2 => octets.truncate(at),
                _ => octets.insert(at, 0xc0),
            }
        }
        // The question is restored, so that the records after it are read.
        let kept = scene.octets.len().min(octets.len()).min(12 + scene.query.name.as_wire().len() + 4);
        let counts: Vec<u8> = octets.get(6..12).map(<[u8]>::to_vec).unwrap_or_default();
        octets[..kept].copy_from_slice(&scene.octets[..kept]);
        if kept >= 12 {
            octets[6..12].copy_from_slice(&counts);
        }
        if let Some(response) = read(&octets, &scene.query) {
            use_up(&response, &scene.query);
            if response.is_answer() {
                let lines = domain(response.message(), Depth::Names).map_err(TestCaseError::fail)?.lines;
                let is_plain = lines.iter().all(|line| is_read_to_the_end(line.2) && !line.5.is_empty());
                let other = hickory(response.message());
                prop_assert!(other.is_ok() || !is_plain, "{:?}", other);
                let again = Response::ours(response.message(), &scene.query).unwrap();
                prop_assert_eq!(again.message(), response.message());
            }
        }
    }

    #[test]
    fn replies_fit_and_read_the_same_everywhere(
        scene in scene(),
        size in prop_oneof![512..1500_usize, Just(65_535)],
        payload in proptest::option::of(0..5000_u16),
        case_seed in any::<u64>(),
        is_stream in any::<bool>(),
    ) {
        let response = read(&scene.octets, &scene.query).unwrap();
        let octets = client_query(&scene.query, payload, case_seed);
        let question = Question::read(&octets).unwrap();
        let space =
            if is_stream { Space::stream(1232) } else { Space::datagram(question.edns.as_ref(), 1232) };
        let out = reply(&response, &question, space, size);
        prop_assert!(out.len() <= size.min(space.limit));
        prop_assert_eq!(&out[..2], [0, 99]);
        let is_truncated = out[2] & 2 != 0;
        let (first, second) = both(&out)?;
        let sent = (question.name().to_vec(), question.qtype.0, question.qclass.0);
        for (who, reading) in [("domain", first), ("hickory", second)] {
            prop_assert_eq!(reading.question.as_ref(), Some(&sent), "{}", who);
            prop_assert_eq!(reading.has_opt, payload.is_some(), "{}", who);
            let expected = if is_truncated { BTreeSet::new() } else { scene.expected() };
            prop_assert_eq!(reading.set(), expected, "{}", who);
        }
        let least = response.message().len() + if payload.is_some() { 11 } else { 0 };
        prop_assert_eq!(is_truncated, least > size.min(space.limit));
    }

    #[test]
    fn queries_of_ours_are_read_by_everybody(
        scene in scene(), id in any::<u16>(), payload in proptest::option::of(512..4097_u16),
        seed in proptest::option::of(any::<u64>()), do_bit in any::<bool>(), cd in any::<bool>(),
    ) {
        let query = UpstreamQuery { do_bit, cd, ..scene.query };
        let mut out = [0; UpstreamQuery::MAX];
        let length = query.write(MessageId(id), payload, seed, &mut out).unwrap();
        let octets = &out[..length];
        let (first, second) = both(octets)?;
        prop_assert_eq!(&first, &second);
        prop_assert_eq!(first.has_opt, payload.is_some());
        let (name, qtype, qclass) = first.question.unwrap();
        prop_assert!(name.eq_ignore_ascii_case(query.name.as_wire()));
        prop_assert!(seed.is_some() || name == query.name.as_wire());
        prop_assert_eq!((qtype, qclass), (query.qtype.0, query.qclass.0));
        let other = hickory_proto::op::Message::from_vec(octets).unwrap();
        prop_assert_eq!((other.metadata.id, other.metadata.checking_disabled), (id, cd));
        prop_assert!(other.metadata.recursion_desired && other.metadata.authentic_data);
        prop_assert_eq!(other.edns.as_ref().map(|e| (e.max_payload(), e.flags().dnssec_ok)), payload.map(|p| (p, do_bit)));
        let question = Question::read(octets).unwrap();
        prop_assert_eq!(question.name(), &name[..]);
        prop_assert_eq!((question.qtype, question.qclass, question.cd()), (query.qtype, query.qclass, cd));
        prop_assert_eq!(question.edns.map(|edns| (edns.payload, edns.do_bit)), payload.map(|p| (p, do_bit)));
    }

    #[test]
    fn no_octets_panic_a_reader(octets in vec(any::<u8>(), 0..600), at in 0..700_usize) {
        if let Ok(question) = Question::read(&octets) {
            prop_assert!(domain(&octets, Depth::Names).is_ok());
            let _ = question.edns.map(|edns: Edns<'_>| edns.options().count());
        }
        let _ = Header::read(&octets);
        let _ = NameBuf::new().expand(&octets, at);
        let _ = name::skip(&octets, at);
        let _ = name::skip_uncompressed(&octets, at);
        let _ = name::stands_at(&octets, at, b"\x03www\x07example\0");
        let _ = Name::from_wire(&octets);
        let _ = find_address(&octets, |_| None::<()>);
        if let Ok(records) = Records::of(&octets) {
            prop_assert!(records.count() <= octets.len() / 11 + 1);
        }
    }

    #[test]
    fn no_query_panics_its_reader_or_the_reply_to_it(
        counts in vec(0..3_u8, 4), flags in any::<u16>(), labels in vec(vec(any::<u8>(), 1..64), 0..6),
        rest in vec(any::<u8>(), 0..60), opt in any::<bool>(), size in 512..600_usize,
    ) {
        let mut octets = vec![0, 99];
        octets.extend((flags & 0x07ff).to_be_bytes());
        octets.extend(counts.iter().flat_map(|&count| [0, count]));
        octets.extend(wire(&labels));
        octets.extend([0, 1, 0, 1]);
        if opt {
            octets.extend(b"\0\0\x29\x04\xd0");
        }
        octets.extend(rest);
        let (echo, edns, rcode) = match Question::read(&octets) {
            Ok(question) => (question.echo, question.edns, Rcode::REFUSED),
            Err(Reject::Reply { echo, rcode, edns }) => (echo, edns, rcode),
            Err(_) => return Ok(()),
        };
        let mut out = vec![0; size];
        let words = "why ".repeat(60);
        let ede = Ede::new(EdeCode::Prohibited, &words);
        let space = Space::datagram(edns.as_ref(), 1232);
        let length = reply::bare(&mut out, &echo, edns.as_ref(), rcode, Some(ede), space);
        prop_assert!(length <= 512);
        let (first, second) = both(&out[..length])?;
        prop_assert_eq!(&first, &second);
        prop_assert_eq!((first.rcode, first.has_opt), (rcode.0, edns.is_some()));
    }

    #[test]
    fn nothing_behind_a_question_panics_the_reader_of_answers(
        flags in 0..0x10_u8, counts in vec(prop_oneof![0..4_u16, any::<u16>()], 3), rest in vec(any::<u8>(), 0..400),
    ) {
        let mut octets = ID.to_be_bytes().to_vec();
        octets.extend([0x81, 0x80 | flags & 3, 0, 1]);
        octets.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
        octets.extend(b"\x03www\x07example\0\0\x01\0\x01");
        octets.extend(rest);
        let name = "www.example".parse().unwrap();
        let query = UpstreamQuery { name, qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false };
        if let Some(response) = read(&octets, &query) {
            use_up(&response, &query);
        }
    }

    #[test]
    fn a_name_survives_its_text(labels in vec(vec(any::<u8>(), 1..64), 0..8)) {
        let octets = wire(&labels);
        match Name::from_wire(&octets) {
            Ok(name) => {
                prop_assert_eq!(name.as_wire(), octets.to_ascii_lowercase());
                prop_assert_eq!(name.to_string().parse::<Name>().unwrap(), name);
            }
            Err(error) => prop_assert!(octets.len() > 255, "{}", error),
        }
    }

    #[test]
    fn no_text_panics_a_reader(text in "\\PC{0,80}", dotted in "[a-zA-Z0-9.\\\\-]{0,300}") {
        for text in [text, dotted] {
            if let Ok(name) = text.parse::<Name>() {
                prop_assert_eq!(Name::from_wire(name.as_wire()).unwrap(), name);
            }
            let _ = text.parse::<RecordType>();
            let _ = text.parse::<Class>();
            let _ = text.parse::<Rcode>();
        }
    }
}
