//! What a balancer, or somebody in its place, writes in front of a query: a PROXY header is believed or the connection
//! ends; what comes back is framed.
#![no_main]

use std::sync::LazyLock;

use fuzz::{Live, converse, first_frame, proxy_header};
use libfuzzer_sys::fuzz_target;

static SITE: LazyLock<Live> = LazyLock::new(Live::behind_a_balancer);

/// www.lan A, framed.
const QUERY: &[u8] = b"\0\x19\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03www\x03lan\0\0\x01\0\x01";

fuzz_target!(|input: (bool, [u8; 4], &[u8])| {
    let (is_sound, cuts, octets) = input;
    // In front of it the beginning of a sound header, so that what stands behind is read.
    let header = if is_sound { proxy_header()[..12].to_vec() } else { Vec::new() };
    let replies = converse(SITE.tcp, &cuts, &[&header[..], octets, QUERY].concat());
    let mut rest = &replies[..];
    while let Some((reply, behind)) = first_frame(rest) {
        assert!(reply.len() >= 12 && reply[2] & 0x80 != 0, "no response: {reply:?}");
        rest = behind;
    }
    assert!(rest.is_empty(), "half a reply");
});
