//! Answers grow old by the clocks of the host, which a suspend and a halt of the machine treat differently.

use std::time::Duration;

use super::*;
use crate::{
    clock::{Moment, WallWatch},
    wire::{Class, Name, RecordType},
};

/// Both clocks, and what is made of them.
#[derive(Default)]
struct Host {
    since_boot: Duration,
    wall: Duration,
    watch: WallWatch,
    missed: Duration,
}

impl Host {
    fn start() -> Self {
        let mut host = Self { wall: Duration::from_hours(400_000), ..Self::default() };
        host.pass(1_000_000);
        host
    }

    /// Time that both clocks see: the machine runs, or is suspended.
    fn pass(&mut self, seconds: u64) {
        self.since_boot += Duration::from_secs(seconds);
        self.wall += Duration::from_secs(seconds);
        self.look();
    }

    /// The wall clock alone is set ahead: a virtual machine was halted, or restored from an image.
    fn halt(&mut self, seconds: u64) {
        self.wall += Duration::from_secs(seconds);
        self.look();
    }

    fn set_back(&mut self, seconds: u64) {
        self.wall -= Duration::from_secs(seconds);
        self.look();
    }

    fn look(&mut self) {
        self.missed += self.watch.compare(self.wall, self.since_boot);
    }

    fn seconds(&self) -> u32 {
        Moment::at(self.since_boot).seconds_with(self.missed)
    }
}

#[test]
fn entries_age_while_the_machine_sleeps_and_with_the_wall_clock_and_never_grow_younger() {
    let name: Name = "www.example".parse().unwrap();
    let key =
        CacheKey { name: name.as_wire(), qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false, view: 0 };
    let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    message.extend(key.name);
    message.extend([0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1]);
    let ttl_at = u16::try_from(message.len()).unwrap();
    message.extend([0, 0, 4, 176, 0, 4, 10, 0, 0, 1]);
    let stamp = Stamp { generation: 1, fingerprint: 7, rule: 0 };
    let cache = Cache::new(1 << 20);
    let mut host = Host::start();
    let new = New {
        message: &message,
        ttl_offsets: &[ttl_at],
        lifetime: 1200,
        now: host.seconds(),
        stamp,
        integrity: Integrity::Whole,
    };
    cache.insert(&key, key.hash(), new, |_| false);
    // The TTL that a client would get; none where the entry has expired.
    let ttl = |host: &Host| {
        let mut reply = [0; 512];
        let now = host.seconds();
        let found = cache.get(&key, key.hash(), now, stamp.generation, &mut reply, |_, _| panic!("same generation"));
        let at = usize::from(ttl_at);
        let ttl = u32::from_be_bytes(reply[at..at + 4].try_into().unwrap());
        matches!(found, Lookup::Hit(_)).then_some(ttl)
    };
    assert_eq!(ttl(&host), Some(1200));
    host.pass(10);
    assert_eq!(ttl(&host), Some(1190));
    host.pass(300);
    assert_eq!(ttl(&host), Some(890), "a suspend counts, and once");
    host.halt(200);
    assert_eq!(ttl(&host), Some(690), "what only the wall clock saw counts");
    host.pass(10);
    assert_eq!(ttl(&host), Some(680));
    host.set_back(3600);
    assert_eq!(ttl(&host), Some(680), "nothing grows younger");
    host.pass(10);
    assert_eq!(ttl(&host), Some(670), "time goes on behind a clock that was set back");
    host.halt(700);
    assert_eq!(ttl(&host), None, "it has expired");
}
