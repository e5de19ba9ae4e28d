//! A client's datagram: whatever it holds, it is read or told why not, and what must be answered is answered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::wire::{
    Ede, EdeCode, Question, Rcode, Reject,
    reply::{self, Space},
};

fuzz_target!(|message: &[u8]| {
    let (echo, edns, rcode) = match Question::read(message) {
        Ok(question) => {
            assert_eq!(question.name().last(), Some(&0));
            (question.echo, question.edns, Rcode::REFUSED)
        }
        Err(Reject::Reply { echo, rcode, edns }) => (echo, edns, rcode),
        Err(Reject::Malformed | Reject::Response | Reject::CookieOnly { .. }) => return,
    };
    let mut out = [0; 512];
    let ede = Ede::new(EdeCode::Prohibited, "this client is not served");
    let space = Space::datagram(edns.as_ref(), 1232);
    let length = reply::bare(&mut out, &echo, edns.as_ref(), rcode, Some(ede), space);
    assert_eq!(out[..2], message[..2]);
    assert!(out[2] & 0x80 != 0 && length <= out.len());
});
