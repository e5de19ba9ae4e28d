mod chains;

use super::*;
use crate::wire::{addresses::find_address, splice};

const ID: MessageId = MessageId(7);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn query(text: &str, qtype: RecordType) -> UpstreamQuery {
    UpstreamQuery { name: name(text), qtype, qclass: Class::IN, do_bit: true, cd: false }
}

/// Builds a response as an upstream might send it.
struct Upstream {
    query: UpstreamQuery,
    writer: Writer,
    flags: u16,
}

impl Upstream {
    fn answers(text: &str, qtype: RecordType) -> Self {
        let query = query(text, qtype);
        let writer = Writer::new(query.name.as_wire(), qtype, Class::IN, 512);
        Self { query, writer, flags: Flags::QR | Flags::RD }
    }

    fn plain(mut self, section: Section, owner: &str, rtype: RecordType, class: Class, rdata: &[u8]) -> Self {
        self.writer.plain(section, name(owner).as_wire(), rtype, class, Ttl::from_wire(300), rdata).unwrap();
        self
    }

    fn answer(self, owner: &str, rtype: RecordType, rdata: &[u8]) -> Self {
        self.plain(Section::Answer, owner, rtype, Class::IN, rdata)
    }

    fn address(self, owner: &str) -> Self {
        self.answer(owner, RecordType::A, &[10, 0, 0, 1])
    }

    fn alias(self, owner: &str, rtype: RecordType, target: &str) -> Self {
        self.answer(owner, rtype, name(target).as_wire())
    }

    fn signature(self, section: Section, owner: &str, covered: RecordType) -> Self {
        let mut rdata = covered.0.to_be_bytes().to_vec();
        rdata.extend([0; 16]);
        rdata.extend_from_slice(b"\x07example\0signed");
        self.plain(section, owner, RecordType::RRSIG, Class::IN, &rdata)
    }

    fn soa(self, owner: &str, class: Class) -> Self {
        let mut rdata = vec![0, 0];
        rdata.extend([0; 16]);
        rdata.extend(60_u32.to_be_bytes());
        self.plain(Section::Authority, owner, RecordType::SOA, class, &rdata)
    }

    fn with(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    fn message(self) -> (Vec<u8>, UpstreamQuery) {
        let message = self.writer.finish(Header { id: ID, flags: Flags(self.flags), counts: [0; 4] });
        (message, self.query)
    }

    fn read(self) -> Response {
        let (message, query) = self.message();
        Response::read(&message, &query, ID, None).unwrap()
    }
}

/// Section, owner and type of every record, in order.
fn records(response: &Response) -> Vec<String> {
    let message = response.message();
    let mut owner = NameBuf::new();
    let lines = Records::of(message).unwrap().map(|record| {
        let record = record.unwrap();
        owner.expand(message, record.owner_at).unwrap();
        format!("{:?} {} {}", record.section, owner.to_name(), record.rtype)
    });
    lines.collect()
}

#[test]
fn a_name_that_is_an_alias_has_no_other_data() {
    let response = Upstream::answers("a.example", RecordType::A)
        .address("a.example")
        .alias("a.example", RecordType::CNAME, "b.example")
        .read();
    assert_eq!(records(&response), ["Answer a.example. CNAME"]);
    assert_eq!(response.kind(), ResponseKind::NoData);
    assert!(response.is_open());
}

#[test]
fn data_that_was_not_asked_for_is_left_out() {
    let response = Upstream::answers("a.example", RecordType::A)
        .answer("a.example", RecordType::AAAA, &[0; 16])
        .address("a.example")
        .answer("a.example", RecordType::TXT, b"\x01x")
        .read();
    assert_eq!(records(&response), ["Answer a.example. A"]);
    let everything = Upstream::answers("a.example", RecordType::ANY)
        .answer("a.example", RecordType::AAAA, &[0; 16])
        .alias("a.example", RecordType::CNAME, "b.example")
        .address("b.example")
        .read();
    assert_eq!(records(&everything), ["Answer a.example. AAAA", "Answer a.example. CNAME"]);
    assert_eq!((everything.kind(), everything.chain()), (ResponseKind::Positive, &[][..]));
}

#[test]
fn a_question_for_cname_is_answered_by_it() {
    let response = Upstream::answers("a.example", RecordType::CNAME)
        .alias("a.example", RecordType::CNAME, "b.example")
        .alias("b.example", RecordType::CNAME, "c.example")
        .read();
    assert_eq!(response.kind(), ResponseKind::Positive);
    assert_eq!(records(&response), ["Answer a.example. CNAME"]);
}

#[test]
fn octets_behind_a_whole_message_are_ignored() {
    let (message, query) = Upstream::answers("a.example", RecordType::A).address("a.example").message();
    let longer = [&message[..], b"padding"].concat();
    let response = Response::read(&longer, &query, ID, None).unwrap();
    assert!(!response.truncated() && !response.has_edns());
    assert_eq!(response.message(), Response::read(&message, &query, ID, None).unwrap().message());
}

#[test]
fn every_response_has_a_message_that_can_be_sent() {
    for rcode in 0..16 {
        for truncated in [0, Flags::TC] {
            let response = Upstream::answers("a.example", RecordType::A).with(rcode | truncated).read();
            let header = Header::read(response.message()).unwrap();
            assert_eq!((header.flags.rcode().0, header.counts[0]), (rcode, 1), "{rcode} {truncated}");
        }
    }
}

#[test]
fn of_the_flags_only_ad_is_relayed_and_aa_where_the_answer_is_ours() {
    let (ours, set) = (Flags::QR | Flags::RA, Flags::AA | Flags::AD | Flags::CD);
    for (case, flags, expected) in [
        ("an answer", 0, ours | Flags::AD),
        ("NXDOMAIN", 3, ours | Flags::AD | 3),
        ("a failure", 5, ours | 5),
        ("cut", Flags::TC, ours),
    ] {
        let response = Upstream::answers("a.example", RecordType::A).address("a.example").with(set | flags).read();
        assert_eq!(Header::read(response.message()).unwrap().flags, Flags(expected), "{case}");
    }
    let (message, query) = Upstream::answers("a.example", RecordType::A).address("a.example").with(set).message();
    let own = Response::ours(&message, &query).unwrap();
    assert_eq!(Header::read(own.message()).unwrap().flags, Flags(ours | Flags::AA | Flags::AD));
}

#[test]
fn the_least_ttl_leaves_the_soa_of_a_negative_answer_aside() {
    let (soa, least) = (name("example").as_wire().repeat(2), Some(Ttl::from_wire(300)));
    let soa = [&soa[..], &[0; 20]].concat();
    let asked = Upstream::answers("example", RecordType::SOA).answer("example", RecordType::SOA, &soa).read();
    assert_eq!((asked.least_ttl(), asked.negative_ttl()), (least, None));
    let negative = |upstream: Upstream| upstream.soa("example", Class::IN).read();
    let nothing = negative(Upstream::answers("a.example", RecordType::A));
    assert_eq!((nothing.least_ttl(), nothing.negative_ttl()), (None, Some(Ttl::from_wire(60))));
    let behind_alias = Upstream::answers("a.example", RecordType::A).alias("a.example", RecordType::CNAME, "b.example");
    assert_eq!(negative(behind_alias).least_ttl(), least);
}

#[test]
fn other_sections_plant_no_names() {
    let ns = name("ns.evil.test");
    let response = Upstream::answers("a.example", RecordType::A)
        .address("a.example")
        .plain(Section::Authority, "amazonaws.com", RecordType::NS, Class::IN, ns.as_wire())
        .plain(Section::Authority, "b.example", RecordType::NSEC, Class::IN, b"\0\0\x01\x40")
        .signature(Section::Authority, "b.example", RecordType::NSEC)
        .plain(Section::Additional, "s3.amazonaws.com", RecordType::A, Class::IN, &[192, 0, 2, 1])
        .read();
    assert_eq!(records(&response), ["Answer a.example. A", "Authority b.example. NSEC", "Authority b.example. RRSIG"]);
    assert_eq!(find_address(response.message(), |address| Some(address.to_string())), Ok(Some("10.0.0.1".into())));
}

#[test]
fn the_soa_of_another_zone_or_class_says_nothing() {
    for (case, owner, class, expected) in [
        ("the zone's", "example", Class::IN, Some(Ttl::from_wire(60))),
        ("the name's own", "a.example", Class::IN, Some(Ttl::from_wire(60))),
        ("a stranger's", "test", Class::IN, None),
        ("another class's", "example", Class::CH, None),
    ] {
        let response = Upstream::answers("a.example", RecordType::A).soa(owner, class).read();
        assert_eq!(response.kind(), ResponseKind::NoData, "{case}");
        assert_eq!(response.negative_ttl(), expected, "{case}");
        assert_eq!(records(&response).len(), usize::from(expected.is_some()), "{case}");
    }
}

#[test]
fn servers_named_by_who_does_not_resolve_are_a_referral() {
    let ns = name("ns.example");
    for (case, owner, class, flags, expected) in [
        ("downwards", "example", Class::IN, 0, ResponseKind::Referral),
        ("upwards", ".", Class::IN, 0, ResponseKind::Referral),
        ("authoritative", "example", Class::IN, Flags::AA, ResponseKind::NoData),
        ("of another class", "example", Class::CH, 0, ResponseKind::NoData),
        ("of a zone that is not asked about", "test", Class::IN, 0, ResponseKind::NoData),
    ] {
        let response = Upstream::answers("a.example", RecordType::A)
            .plain(Section::Authority, owner, RecordType::NS, class, ns.as_wire())
            .with(flags)
            .read();
        assert_eq!(response.kind(), expected, "{case}");
        assert_eq!(response.is_answer(), expected == ResponseKind::NoData, "{case}");
    }
}

#[test]
fn records_of_another_class_are_no_answer() {
    let response = Upstream::answers("a.example", RecordType::A)
        .plain(Section::Answer, "a.example", RecordType::A, Class::CH, &[10, 0, 0, 1])
        .soa("example", Class::IN)
        .read();
    assert_eq!((response.kind(), records(&response).len()), (ResponseKind::NoData, 1));
}

#[test]
fn extended_codes_count_and_hop_by_hop_records_end_here() {
    let (mut message, query) = Upstream::answers("a.example", RecordType::A)
        .address("a.example")
        .plain(Section::Additional, ".", RecordType::TSIG, Class::ANY, &[0; 20])
        .message();
    message[11] += 1;
    message.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    let response = Response::read(&message, &query, ID, None).unwrap();
    assert_eq!((response.kind(), response.has_edns(), records(&response).len()), (ResponseKind::Positive, true, 1));
    let at = message.len() - 6;
    message[at] = 1;
    let response = Response::read(&message, &query, ID, None).unwrap();
    assert_eq!((response.kind(), response.rcode()), (ResponseKind::Failure, Rcode::BADVERS));
    message[3] |= 7;
    let response = Response::read(&message, &query, ID, None).unwrap();
    assert_eq!(response.rcode(), Rcode::BADCOOKIE);
}

#[test]
fn a_failure_keeps_its_extended_error() {
    for (rcode, expected) in [(Rcode::REFUSED, Some((18, "for me"))), (Rcode::NOERROR, None)] {
        let (mut message, query) = Upstream::answers("a.example", RecordType::A).with(rcode.0).message();
        message[11] += 1;
        message.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0f\0\x08\0\x12for me");
        let response = Response::read(&message, &query, ID, None).unwrap();
        assert_eq!(response.ede().map(|ede| (ede.code, ede.text())), expected, "{rcode}");
    }
}

/// TSIG, TKEY and SIG(0) (RFC 8945, 2930, 2931).
#[test]
fn what_authenticates_one_hop_is_no_answer_even_where_it_is_asked_for() {
    let signature = |covered: u8| [&[0, covered][..], &[0; 16], name("example").as_wire()].concat();
    for (rtype, rdata, stays) in [
        (RecordType::TSIG, vec![0; 17], false),
        (RecordType::TKEY, vec![0; 17], false),
        (RecordType::SIG, signature(0), false),
        (RecordType::SIG, signature(1), true),
    ] {
        let response = Upstream::answers("a.example", RecordType::ANY).answer("a.example", rtype, &rdata).read();
        assert_eq!(response.is_positive(), stays, "{rtype}");
        assert_eq!(records(&response).len(), usize::from(stays), "{rtype}");
    }
}

/// RFC 6891 6.1.1.
#[test]
fn two_opt_records_or_one_in_another_section_make_no_message() {
    const OPT: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";
    for (counts, is_read) in [([0, 0, 1], true), ([0, 0, 2], false), ([1, 0, 0], false), ([0, 1, 0], false)] {
        let (mut message, query) = Upstream::answers("a.example", RecordType::A).message();
        for (section, count) in counts.into_iter().enumerate() {
            message[7 + 2 * section] = count;
            (0..count).for_each(|_| message.extend_from_slice(OPT));
        }
        let read = Response::read(&message, &query, ID, None).map(|response| response.has_edns());
        assert_eq!(read, if is_read { Ok(true) } else { Err(Malformed::Opt.into()) }, "{counts:?}");
    }
}

#[test]
fn a_message_that_is_not_the_answer_is_told_apart() {
    let (message, query) = Upstream::answers("a.example", RecordType::A).address("a.example").message();
    let read = |message: &[u8]| Response::read(message, &query, ID, None).err();
    let changed = |at: usize, octet: u8| {
        let mut message = message.clone();
        message[at] = octet;
        message
    };
    assert_eq!(read(&message), None);
    assert_eq!(read(&changed(13, b'A')), None, "names are equal in any letter case");
    for (case, message, expected) in [
        ("short", message[..11].to_vec(), Mismatch::Short),
        ("a query", changed(2, 0), Mismatch::NotAResponse),
        ("another opcode", changed(2, 0x90), Mismatch::NotAResponse),
        ("another id", changed(1, 8), Mismatch::Id),
        ("another name", changed(13, b'b'), Mismatch::Question),
        ("another type", changed(24, 28), Mismatch::Question),
        ("another class", changed(26, 3), Mismatch::Question),
        ("two questions", changed(5, 2), Mismatch::Question),
        ("no question", changed(5, 0), Mismatch::Question),
        ("a cut record", message[..message.len() - 1].to_vec(), Malformed::Short.into()),
        ("an address of three octets", changed(message.len() - 5, 3), Malformed::Rdata.into()),
    ] {
        assert_eq!(read(&message), Some(expected), "{case}");
    }
}

#[test]
fn mixed_case_must_come_back() {
    let (message, query) = Upstream::answers("a.example", RecordType::A).address("a.example").message();
    let sent = b"\x01A\x07example\0\0\x01\0\x01";
    assert_eq!(Response::read(&message, &query, ID, Some(sent)).err(), Some(Mismatch::Question));
    let mut echoed = message.clone();
    echoed[13] = b'A';
    let response = Response::read(&echoed, &query, ID, Some(sent)).unwrap();
    assert_eq!(response.message()[13], b'a');
}

#[test]
fn a_failure_may_come_without_its_question() {
    let query = query("a.example", RecordType::A);
    for (flags, expected) in [(0x8001, Ok(Rcode::FORMERR)), (0x8002, Ok(Rcode::SERVFAIL)), (0x8000, Err(()))] {
        let message = Header { id: ID, flags: Flags(flags), counts: [0; 4] }.to_bytes();
        let read = Response::read(&message, &query, ID, None);
        assert_eq!(read.map(|response| response.rcode()).map_err(|_| ()), expected, "{flags:x}");
    }
}

#[test]
fn a_truncated_response_has_its_question_alone_and_is_not_read_on() {
    let (mut message, query) =
        Upstream::answers("a.example", RecordType::A).address("a.example").with(Flags::TC).message();
    message.truncate(message.len() - 3);
    let response = Response::read(&message, &query, ID, None).unwrap();
    assert!(response.truncated() && records(&response).is_empty() && !response.is_answer());
}

#[test]
fn ttl_offsets_lead_to_the_ttls() {
    let mut response = Upstream::answers("a.example", RecordType::A)
        .alias("a.example", RecordType::CNAME, "b.example")
        .address("b.example")
        .read();
    let at: Vec<usize> = Records::of(response.message()).unwrap().map(|record| record.unwrap().ttl_at).collect();
    assert_eq!(response.ttl_offsets().iter().map(|&at| usize::from(at)).collect::<Vec<_>>(), at);
    response.map_ttls(|ttl| ttl.min(Ttl::from_wire(30)));
    let ttls: Vec<u32> = Records::of(response.message()).unwrap().map(|record| record.unwrap().raw_ttl).collect();
    assert_eq!((ttls, response.least_ttl()), (vec![30, 30], Some(Ttl::from_wire(30))));
}

#[test]
fn an_http_caches_age_is_taken_off_every_ttl() {
    for (age, expected) in [(0, (300, 60)), (50, (250, 10)), (100, (200, 0)), (400, (0, 0))] {
        let mut response = Upstream::answers("a.example", RecordType::A)
            .alias("a.example", RecordType::CNAME, "b.example")
            .soa("example", Class::IN)
            .read();
        response.age(age);
        let (alias, soa) = (Ttl::from_wire(expected.0), Ttl::from_wire(expected.1));
        assert_eq!((response.least_ttl(), response.negative_ttl()), (Some(alias), Some(soa)), "{age}");
        let ttls: Vec<Ttl> = Records::of(response.message()).unwrap().map(|record| record.unwrap().ttl()).collect();
        assert_eq!(ttls, [alias; 2], "{age}");
    }
}

#[test]
fn room_for_our_opt_is_left_in_the_longest_message() {
    let mut upstream = Upstream::answers("a.example", RecordType::TXT);
    let longest = crate::wire::MAX_MESSAGE - upstream.writer.written().len() - 12 - crate::wire::edns::OPT_WITH_COOKIE;
    let fits = upstream.writer.plain(
        Section::Answer,
        upstream.query.name.as_wire(),
        RecordType::TXT,
        Class::IN,
        Ttl::ZERO,
        &vec![0; longest],
    );
    assert!(fits.is_ok());
    assert!(upstream.read().is_answer());
    let mut upstream = Upstream::answers("a.example", RecordType::TXT);
    let rdata = vec![0; longest + 1];
    let name = upstream.query.name.clone();
    let result = upstream.writer.plain(Section::Answer, name.as_wire(), RecordType::TXT, Class::IN, Ttl::ZERO, &rdata);
    assert_eq!(result, Err(Malformed::TooLong));
}

#[test]
fn records_that_the_guard_refuses_are_left_out() {
    let (message, query) = Upstream::answers("a.example", RecordType::A)
        .address("a.example")
        .answer("a.example", RecordType::A, &[192, 0, 2, 1])
        .message();
    let response = Response::read(&message, &query, ID, None).unwrap();
    let private = splice::retain(&response, &query, |message, record| record.rdata(message)[0] == 10).unwrap();
    assert_eq!((private.kind(), records(&private).len()), (ResponseKind::Positive, 1));
    let nothing = splice::retain(&private, &query, |_, _| false).unwrap();
    assert_eq!((nothing.kind(), records(&nothing).len()), (ResponseKind::NoData, 0));
}
