//! A client's TCP stream, cut anywhere: each whole message gets at most one reply, framed, and the connection ends.
#![no_main]

use std::sync::LazyLock;

use fuzz::{Live, converse, first_frame};
use libfuzzer_sys::fuzz_target;

static SITE: LazyLock<Live> = LazyLock::new(Live::direct);

fuzz_target!(|input: ([u8; 4], &[u8])| {
    let (cuts, octets) = input;
    let replies = converse(SITE.tcp, &cuts, octets);
    let (mut asked, mut rest) = (Vec::new(), octets);
    while let Some((message, behind)) = first_frame(rest) {
        asked.push(message);
        rest = behind;
    }
    let mut rest = &replies[..];
    let mut count = 0;
    while let Some((reply, behind)) = first_frame(rest) {
        let is_its = |query: &&[u8]| query.len() >= 12 && query[..2] == reply[..2];
        assert!(asked.iter().any(is_its), "a reply to nothing");
        rest = behind;
        count += 1;
    }
    assert!(count <= asked.len(), "{count} replies to {} messages", asked.len());
    assert!(rest.is_empty(), "half a reply");
});
