//! Entries are written in a short form where a message is one record set: whatever is stored comes back as it was.

use tidegate::{
    cache::{Cache, CacheKey, Insertion, Integrity, Lookup, MAX_VIEW, New},
    wire::{Class, RecordType},
};

use crate::{DAY, NOW, STAMP, ask, key, name, response};

/// A message, and where its TTLs stand.
type Message = (Vec<u8>, Vec<u16>);
type Edit<'a> = &'a dyn Fn(&mut Message);

/// The message with every TTL changed.
fn with_ttls((message, offsets): &Message, change: impl Fn(u32) -> u32) -> Vec<u8> {
    let mut message = message.clone();
    for &at in offsets {
        let ttl = message[usize::from(at)..].first_chunk_mut::<4>().unwrap();
        *ttl = change(u32::from_be_bytes(*ttl)).to_be_bytes();
    }
    message
}

fn comes_back(case: &str, key: &CacheKey<'_>, message: &Message, lifetime: u32) {
    let cache = Cache::new(1 << 20);
    let new = New {
        message: &message.0,
        ttl_offsets: &message.1,
        lifetime,
        now: NOW,
        stamp: STAMP,
        integrity: Integrity::Whole,
    };
    assert_eq!(cache.insert(key, key.hash(), new, |_| false), Insertion::Stored, "{case}");
    assert_eq!(ask(&cache, key, NOW + 10).1, with_ttls(message, |ttl| ttl.saturating_sub(10)), "{case}");
    let mut reply = vec![0xaa; 65_535];
    let stale = cache.stale(key, key.hash(), NOW + lifetime + 5, STAMP.generation, DAY, &mut reply, |_, _| None);
    assert_eq!(reply[..stale.unwrap().length], with_ttls(message, |_| DAY.ttl), "{case}");
    let judged = cache.get(key, key.hash(), NOW, STAMP.generation + 1, &mut reply, |shown, stamp| {
        assert_eq!((shown, stamp), (&*message.0, STAMP), "{case}");
        Some(STAMP)
    });
    assert!(matches!(judged, Lookup::Hit(_)), "{case}");
    assert_eq!(cache.peek(key, key.hash(), NOW).unwrap().message, message.0, "{case}");
    let mut shown = 0;
    cache.for_each(|entry| {
        assert_eq!((entry.key, entry.message, entry.ttl_offsets), (*key, &*message.0, &*message.1), "{case}");
        assert_eq!((entry.stored_at, entry.lifetime, entry.stamp), (NOW, lifetime, STAMP), "{case}");
        shown += 1;
    });
    assert_eq!(shown, 1, "{case}");
    let mut question = [&message.0[..6], &[0; 6], key.name, &message.0[12 + key.name.len()..][..4]].concat();
    let mut short = vec![0xaa; question.len()];
    if message.0.len() > short.len() {
        let found = cache.get(key, key.hash(), NOW, STAMP.generation, &mut short, |_, _| None);
        assert!(matches!(found, Lookup::TooLarge(found) if found.length == short.len()), "{case}: {found:?}");
        question[..2].fill(0);
        assert_eq!(short, question, "{case}");
    }
    assert_eq!(cache.remove(key), 1, "{case}");
}

/// A message for the key that `edit` has changed.
fn edited(key: &CacheKey<'_>, edit: impl FnOnce(&mut Message)) -> Message {
    let mut message = response(key, &[60, 60, 60], 7, 4);
    edit(&mut message);
    message
}

#[test]
fn every_form_of_message_comes_back_as_it_was() {
    let name = name("forms.example");
    let plain = key(&name);
    for key in [
        plain,
        CacheKey { view: 3, ..plain },
        CacheKey { view: MAX_VIEW, do_bit: true, ..plain },
        CacheKey { cd: true, ..plain },
        CacheKey { qclass: Class(3), ..plain },
        CacheKey { qtype: RecordType::AAAA, ..plain },
    ] {
        for length in [0, 1, 4, 5, 15, 16, 17, 300] {
            for count in [1, 2, 3, 8] {
                let message = response(&key, &vec![60; count], 7, length);
                comes_back(&format!("{key:?}, {count} of {length}"), &key, &message, 60);
            }
        }
        let first = 12 + key.name.len() + 4;
        let unusual: [(&str, Edit<'_>); 12] = [
            ("other flags", &|m| m.0[2..4].copy_from_slice(&[0x85, 0xa3])),
            ("a TTL of its own", &|m| m.0[first + 9] = 61),
            ("a TTL that is shorter", &|m| m.0[first + 16 + 9] = 59),
            ("a TTL of zero", &|m| m.0[first + 32 + 9] = 0),
            ("a pointer elsewhere", &|m| m.0[first + 1] = 13),
            ("another type", &|m| m.0[first + 16 + 3] = 5),
            ("another class", &|m| m.0[first + 5] = 4),
            ("an RDLENGTH that is wrong", &|m| m.0[first + 11] = 3),
            ("a record of authority", &|m| m.0[6..10].copy_from_slice(&[0, 2, 0, 1])),
            ("an additional record", &|m| m.0[6..12].copy_from_slice(&[0, 2, 0, 0, 0, 1])),
            ("something behind", &|m| m.0.extend([0; 16])),
            ("a TTL that is left out", &|m| m.1.truncate(2)),
        ];
        for (case, edit) in unusual {
            comes_back(&format!("{key:?}, {case}"), &key, &edited(&key, edit), 60);
        }
        comes_back("two TTLs changed places", &key, &edited(&key, |m| m.1.swap(0, 1)), 60);
        comes_back("a lifetime of its own", &key, &edited(&key, |_| ()), 59);
        comes_back("no record at all", &key, &response(&key, &[], 7, 4), 60);
        for count in [254, 255, 256, 300] {
            comes_back(&format!("{count} records"), &key, &response(&key, &vec![60; count], 7, 4), 60);
        }
    }
}

#[test]
fn a_record_set_takes_little_more_than_its_name_and_its_data() {
    // One shard: how evenly the hash fills several is another matter.
    let (cache, name) = (Cache::new(900 << 10), name("a-name-that-is-as-long-as-those-of-others.example.net"));
    let key = key(&name);
    let stored = |message: &Message| {
        let new = New {
            message: &message.0,
            ttl_offsets: &message.1,
            lifetime: 60,
            now: NOW,
            stamp: STAMP,
            integrity: Integrity::Whole,
        };
        // Entries of other views, until they are some pages.
        cache.clear();
        let before = cache.stats().bytes;
        for view in 0..4096 {
            let key = CacheKey { view, ..key };
            assert_eq!(cache.insert(&key, key.hash(), new, |_| false), Insertion::Stored);
        }
        (cache.stats().bytes - before) / 4096
    };
    let one = stored(&response(&key, &[60], 1, 4));
    let eight = stored(&response(&key, &[60; 8], 1, 4));
    assert!(one < 110 && eight - one < 7 * 5, "{one} octets with one address, {eight} with eight");
}
