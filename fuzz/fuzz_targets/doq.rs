//! A stream of DNS over QUIC, read as a client's and as an upstream's: one whole message or none; a query gets a reply
//! that can be sent on its stream.
#![no_main]

use std::time::Duration;

use fuzz::{CLIENT, Site, hold};
use libfuzzer_sys::fuzz_target;
use tidegate::{
    engine::ClientChannel,
    wire::{Class, MessageId, Question, RecordType, Response, Transport, UpstreamQuery, doq},
};

thread_local!(static SITE: Site = Site::alone());

fuzz_target!(|stream: &[u8]| {
    if let Ok(message) = doq::read_query(stream) {
        assert_eq!((&message[..2], message.len() + 2), (&[0, 0][..], stream.len()), "the stream and nothing else");
        let has_keepalive =
            Question::read(message).is_ok_and(|query| query.edns.is_some_and(|edns| edns.has_keepalive));
        assert!(!has_keepalive);
        let carrier = ClientChannel::stream(Transport::Quic, Duration::from_secs(10));
        let reply = SITE.with(|site| {
            site.forget();
            site.answer(message, CLIENT, carrier)
        });
        if !reply.is_empty() {
            hold(message, &reply);
            let length = u16::try_from(reply.len()).expect("it is a message").to_be_bytes();
            assert_eq!(doq::read_response(&[&length[..], &reply].concat()), Some(&reply[..]));
        }
    }
    if let Some(message) = doq::read_response(stream) {
        let name = "www.example".parse().expect("it is a name");
        let query = UpstreamQuery { name, qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false };
        if let Ok(response) = Response::read(message, &query, MessageId(0), None) {
            assert!(Response::ours(response.message(), &query).is_ok() || !response.is_answer());
        }
    }
});
