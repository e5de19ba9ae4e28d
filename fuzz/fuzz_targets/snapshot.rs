//! A hostile snapshot, its checksums right: what is taken back of it answers as well-formed as anything, and its damage
//! leaves nothing behind.
#![no_main]

use fuzz::{CLIENT, Site};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use tidegate::{
    cache::{
        CacheKey, EntryView, Integrity, Stamp,
        snapshot::{SnapshotHeader, SnapshotRule, SnapshotWriter},
    },
    clock::Moment,
    engine::ClientChannel,
    wire::{Class, MessageId, Name, RecordType, Transport, UpstreamQuery},
};

/// An entry as a file may have it.
#[derive(Debug, Arbitrary)]
struct Entry<'a> {
    qtype: u8,
    do_bit: bool,
    cd: bool,
    /// Whether header and question are those of a sound message.
    is_sound: bool,
    flags: [u8; 2],
    counts: [u8; 3],
    rest: &'a [u8],
    ttl_offsets: Vec<u16>,
    lifetime: u32,
    age: u32,
    view: u16,
    rule: u8,
    is_stripped: bool,
}

thread_local!(static SITE: Site = Site::alone());

const WWW: &str = "www.open";

fuzz_target!(|input: (Vec<Entry<'_>>, &[u8])| {
    let (entries, raw) = input;
    SITE.with(|site| {
        site.forget();
        let now = Moment::now();
        // As it stands, behind the first octets of such a file.
        let _ = site.context.engine.restore(raw, now, 1_000_000);
        assert_eq!(site.context.engine.cache.stats().entries, 0, "damage leaves nothing behind");

        let rules: Vec<SnapshotRule> = site
            .snapshot
            .rules()
            .iter()
            .map(|rule| SnapshotRule { name: rule.name.to_string(), fingerprint: rule.fingerprint })
            .collect();
        let header = SnapshotHeader { written: 1_000_000, entries: entries.len() as u64, rules };
        let mut writer = SnapshotWriter::begin(Vec::new(), 7, &header).expect("memory");
        for entry in &entries {
            let qtype = RecordType(u16::from(entry.qtype % 66));
            let message = entry.message(qtype);
            // Fingerprints are a secret of nobody: whoever can write the file can copy them from it.
            let name: Name = WWW.parse().expect("it is a name");
            let found = site.snapshot.table.find(name.as_wire(), CLIENT).expect("a rule has it");
            let stamp = site.snapshot.stamp(&message, CLIENT, found, 0);
            let stamp = stamp.unwrap_or(Stamp { generation: 0, fingerprint: 0, rule: 0 });
            let key = CacheKey {
                name: name.as_wire(),
                qtype,
                qclass: Class::IN,
                do_bit: entry.do_bit,
                cd: entry.cd,
                view: entry.view % 3,
            };
            writer.push(
                &EntryView {
                    key,
                    message: &message,
                    ttl_offsets: &entry.ttl_offsets,
                    stored_at: 0,
                    lifetime: entry.lifetime,
                    stamp: Stamp { rule: if entry.is_sound { stamp.rule } else { u16::from(entry.rule % 4) }, ..stamp },
                    integrity: if entry.is_stripped { Integrity::Stripped } else { Integrity::Whole },
                },
                entry.age % 100_000,
            );
        }
        let (file, _) = writer.finish().expect("memory");
        let restored = site.context.engine.restore(&file[..], now, 1_000_010);
        let _ = restored;
        for entry in &entries {
            let name: Name = WWW.parse().expect("it is a name");
            let qtype = RecordType(u16::from(entry.qtype % 66));
            let query = UpstreamQuery { name, qtype, qclass: Class::IN, do_bit: entry.do_bit, cd: entry.cd };
            for payload in [None, Some(1232)] {
                let mut message = [0; UpstreamQuery::MAX];
                let length = query.write(MessageId(77), payload, None, &mut message).expect("it fits");
                for carrier in [ClientChannel::DATAGRAM, ClientChannel { transport: Transport::Tcp, keepalive: None }] {
                    let reply = site.answer(&message[..length], CLIENT, carrier);
                    assert!(!reply.is_empty(), "an answer is due");
                }
            }
        }
    });
});

impl Entry<'_> {
    fn message(&self, qtype: RecordType) -> Vec<u8> {
        let mut message = vec![0, 0];
        message.extend(if self.is_sound { [0x81, 0x80] } else { self.flags });
        message.extend([0, 1]);
        message.extend(self.counts.iter().flat_map(|&count| [0, count % 8]));
        message.extend(b"\x03www\x04open\0");
        message.extend(qtype.0.to_be_bytes());
        message.extend([0, 1]);
        message.extend_from_slice(self.rest);
        message
    }
}
