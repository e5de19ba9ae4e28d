//! A file is read back as it was written, or not at all.

use std::{env, io::Read};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tidegate::{
    cache::{
        CacheKey, EntryView, Integrity, Stamp,
        snapshot::{SnapshotError, SnapshotHeader, SnapshotReader, SnapshotRule, SnapshotWriter},
    },
    wire::{Class, Name, RecordType},
};

const STAMP: Stamp = Stamp { generation: 7, fingerprint: 0x0123_4567_89ab_cdef, rule: 70_000 };

/// Name, type, DO, CD and whether it was stripped, view, message, TTL offsets, age, lifetime, rule, fingerprint.
type Plain = (Vec<u8>, u16, [bool; 3], u32, Vec<u8>, Vec<u16>, [u32; 2], u32, u64);

const VIEWS: [u32; 5] = [0, 1, 2, 65_536, 1_000_000];

fn header() -> SnapshotHeader {
    let rule = |name: &str, fingerprint| SnapshotRule { name: name.to_owned(), fingerprint };
    SnapshotHeader {
        written: 1_795_000_000,
        entries: 3,
        rules: vec![rule("aws", 1), rule("the rest, \"quoted\"", u64::MAX)],
    }
}

/// An address record's answer for the `n`th name.
fn message(n: u32) -> (Name, Vec<u8>) {
    let name: Name = format!("host-{n}.service.eu-west-1.amazonaws.com").parse().unwrap();
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    message.extend_from_slice(name.as_wire());
    message.extend_from_slice(&[0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4]);
    message.extend_from_slice(&n.to_be_bytes());
    (name, message)
}

fn file(entries: u32) -> Vec<u8> {
    let mut writer = SnapshotWriter::begin(Vec::new(), 0x5eed, &header()).unwrap();
    for n in 0..entries {
        let (name, message) = message(n);
        let offset = u16::try_from(message.len() - 10).unwrap();
        let key = CacheKey {
            name: name.as_wire(),
            qtype: RecordType::A,
            qclass: Class::IN,
            do_bit: n % 2 == 1,
            cd: n % 3 == 1,
            view: VIEWS[n as usize % 5],
        };
        let entry = EntryView {
            key,
            message: &message,
            ttl_offsets: &[offset],
            stored_at: 0,
            lifetime: 3600,
            stamp: STAMP,
            integrity: if n % 7 == 0 { Integrity::Stripped } else { Integrity::Whole },
        };
        writer.push(&entry, n);
        writer.settle().unwrap();
    }
    let (file, written) = writer.finish().unwrap();
    assert_eq!(written, entries);
    file
}

fn read(input: impl Read) -> Result<Vec<Plain>, SnapshotError> {
    let reader = SnapshotReader::begin(input)?;
    assert_eq!(*reader.header(), header());
    let mut entries = Vec::new();
    reader.read(|saved, offsets| {
        entries.push((
            saved.key.name.to_vec(),
            saved.key.qtype.0,
            [saved.key.do_bit, saved.key.cd, saved.integrity == Integrity::Stripped],
            saved.key.view,
            saved.message.to_vec(),
            offsets.to_vec(),
            [saved.age, saved.lifetime],
            saved.rule,
            saved.fingerprint,
        ));
    })?;
    Ok(entries)
}

#[test]
fn a_written_snapshot_reads_back() {
    for count in [0, 1, 3, 2_000] {
        let entries = read(&file(count)[..]).unwrap();
        assert_eq!(entries.len(), count as usize);
        for (entry, n) in entries.iter().zip(0_u32..) {
            let (name, message) = message(n);
            let offset = u16::try_from(message.len() - 10).unwrap();
            let view = VIEWS[n as usize % 5];
            let flags = [n % 2 == 1, n % 3 == 1, n % 7 == 0];
            let key = (name.as_wire().to_vec(), 1, flags, view);
            let rest = (message, vec![offset], [n, 3600], STAMP.rule, STAMP.fingerprint);
            let (k0, k1, k2, k3, m, o, t, r, f) = entry.clone();
            assert_eq!(((k0, k1, k2, k3), (m, o, t, r, f)), (key, rest));
        }
    }
}

#[test]
fn a_file_names_as_many_rules_as_there_may_be() {
    let rule = |n| SnapshotRule { name: format!("zone{n}.example"), fingerprint: n };
    let many = SnapshotHeader { rules: (0..20_000).map(rule).collect(), ..header() };
    let file = SnapshotWriter::begin(Vec::new(), 1, &many).unwrap().finish().unwrap().0;
    let reader = SnapshotReader::begin(&file[..]).unwrap();
    assert_eq!(*reader.header(), many);
    assert_eq!(reader.read(|_, _| {}).unwrap(), 0);
}

#[test]
fn a_file_cut_at_any_length_is_not_believed() {
    let file = file(40);
    for length in 0..file.len() {
        let damage = read(&file[..length]).expect_err("a torn file");
        assert!(matches!(damage, SnapshotError::Torn(_) | SnapshotError::Foreign), "{length}: {damage}");
    }
    let longer = [&file[..], &[0]].concat();
    assert!(matches!(read(&longer[..]), Err(SnapshotError::Trailing)));
}

#[test]
fn a_file_with_any_bit_flipped_is_not_believed() {
    let mut file = file(40);
    for at in 0..file.len() {
        for bit in 0..8 {
            file[at] ^= 1 << bit;
            assert!(read(&file[..]).is_err(), "octet {at}, bit {bit}");
            file[at] ^= 1 << bit;
        }
    }
    assert_eq!(read(&file[..]).unwrap().len(), 40);
}

#[test]
fn blocks_in_another_order_or_of_another_file_are_not_believed() {
    let file = file(2_000);
    // Behind the preamble of 28 octets: header block, data blocks, last block.
    let mut blocks = Vec::new();
    let mut at = 28;
    while at < file.len() {
        let length = u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        blocks.push(&file[at..at + 16 + length]);
        at += 16 + length;
    }
    assert!(blocks.len() > 4, "{} blocks", blocks.len());
    let mut swapped = blocks.clone();
    swapped.swap(1, 2);
    let mut dropped = blocks.clone();
    dropped.remove(1);
    let mut last = SnapshotWriter::begin(Vec::new(), 0x07e4, &header()).unwrap();
    last.settle().unwrap();
    let (empty, _) = last.finish().unwrap();
    let mut foreign = blocks.clone();
    *foreign.last_mut().unwrap() = &empty[empty.len() - 16..];
    for blocks in [swapped, dropped, foreign] {
        let file = [&file[..28], &blocks.concat()].concat();
        assert!(matches!(read(&file[..]), Err(SnapshotError::Checksum(_))));
    }
}

#[test]
fn other_files_are_told_apart() {
    assert!(matches!(read(&b""[..]), Err(SnapshotError::Foreign)));
    assert!(matches!(read(&b"SQLite format 3\0 and more of it"[..]), Err(SnapshotError::Foreign)));
    let mut newer = file(1);
    newer[16] = 2;
    assert!(matches!(read(&newer[..]), Err(SnapshotError::Version(2))));
}

/// Half a million names, damaged at random. `TIDEGATE_SNAPSHOT_CASES` says how often.
#[test]
fn a_large_file_damaged_at_random_is_not_believed() {
    let cases = env::var("TIDEGATE_SNAPSHOT_CASES").ok().and_then(|cases| cases.parse().ok());
    let (cases, names) = cases.map_or((40, 10_000), |cases: u32| (cases, 500_000));
    let mut file = file(names);
    let mut random = StdRng::seed_from_u64(0x71de);
    for _ in 0..cases {
        let (at, bit) = (random.random_range(0..file.len()), random.random_range(0..8));
        file[at] ^= 1 << bit;
        assert!(read(&file[..]).is_err(), "octet {at}, bit {bit}");
        file[at] ^= 1 << bit;
        let length = random.random_range(0..file.len());
        assert!(read(&file[..length]).is_err(), "cut at {length}");
    }
}
