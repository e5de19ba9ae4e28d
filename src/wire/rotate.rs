//! Rotates addresses: each reply begins with another one, to spread clients that use the first over all of them.

use super::{RecordType, header::HEADER, name, read_u16};

/// Where a header counts the records of the answer section.
const ANSWER_COUNT_AT: usize = 6;

/// Rotates each run of A or AAAA records at one name in the answer section of a message that we wrote, whose question
/// section is `section` octets long. `choose` gives a number below the one it is given; it is called only where there is
/// a choice.
#[inline]
pub fn rotate(message: &mut [u8], section: usize, choose: impl FnMut(usize) -> usize) {
    // Most answers are one record.
    if let Ok(count @ 2..) = read_u16(message, ANSWER_COUNT_AT) {
        rotate_runs(message, HEADER + section, count.into(), choose);
    }
}

#[inline(never)]
fn rotate_runs(message: &mut [u8], mut at: usize, mut left: usize, mut choose: impl FnMut(usize) -> usize) {
    while left > 1 {
        let Some(run) = Run::read(message, at, left) else { return };
        if run.count > 1 {
            run.rotate(message, choose(run.count));
        }
        left -= run.count;
        at = run.end;
    }
}

/// Addresses at one name, or one other record.
struct Run {
    count: usize,
    /// Where the first record's TTL stands, and the second record.
    first: usize,
    second: usize,
    /// The octets of each record behind the first.
    size: usize,
    end: usize,
}

/// Before the TTL of a record whose owner is a pointer: that, type and class.
const BEFORE_TTL: usize = 6;
/// The octets between the owner of a record and its RDATA: type, class, TTL, RDLENGTH.
const FIXED: usize = 10;

impl Run {
    fn read(message: &[u8], at: usize, left: usize) -> Option<Self> {
        let behind = name::skip(message, at).ok()?;
        let fixed = message.get(behind..behind + FIXED)?.first_chunk::<FIXED>()?;
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let second = behind + FIXED + length;
        let is_address = matches!(
            (RecordType(u16::from_be_bytes([fixed[0], fixed[1]])), length),
            (RecordType::A, 4) | (RecordType::AAAA, 16)
        );
        let rest = message.get(second..)?;
        let size = 2 + FIXED + length;
        let mut count = 1;
        if is_address {
            // The records that follow point to the same owner as the first, or to where it stands.
            let own = u16::try_from(at).ok().filter(|at| *at < 0x4000).map(|at| 0xc000 | at);
            let owner = name::pointer(message, at).or(own)?.to_be_bytes();
            let is_same =
                |other: &&[u8]| other[..2] == owner && other[2..6] == fixed[..4] && other[10..12] == fixed[8..];
            count += rest.chunks_exact(size).take(left - 1).take_while(is_same).count();
        }
        Some(Self { count, first: behind + 4, second, size, end: second + (count - 1) * size })
    }

    /// Where the TTL of a record stands. TTL and RDATA rotate together; everything else is the same in each record.
    const fn ttl_at(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            None => self.first,
            Some(before) => self.second + before * self.size + BEFORE_TTL,
        }
    }

    fn rotate(&self, message: &mut [u8], first: usize) {
        let mut reverse = |from: usize, to: usize| {
            for step in 0..(to - from) / 2 {
                self.swap(message, from + step, to - 1 - step);
            }
        };
        reverse(0, first);
        reverse(first, self.count);
        reverse(0, self.count);
    }

    fn swap(&self, message: &mut [u8], one: usize, other: usize) {
        let length = self.size - BEFORE_TTL;
        let (front, back) = message.split_at_mut(self.ttl_at(other));
        let one = self.ttl_at(one);
        front[one..one + length].swap_with_slice(&mut back[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Class, Flags, Header, MessageId, Ttl, name::Name, record::Section, writer::Writer};

    fn message(records: &[(&str, RecordType, &[u8])]) -> Vec<u8> {
        let owner: Name = "a.example".parse().unwrap();
        let mut writer = Writer::new(owner.as_wire(), RecordType::A, Class::IN, 512);
        for (owner, rtype, rdata) in records {
            let owner: Name = owner.parse().unwrap();
            writer.plain(Section::Answer, owner.as_wire(), *rtype, Class::IN, Ttl::from_wire(60), rdata).unwrap();
        }
        writer.finish(Header { id: MessageId(0), flags: Flags(Flags::QR), counts: [0; 4] })
    }

    #[test]
    fn addresses_of_one_name_begin_with_the_chosen_one_and_the_rest_stays() {
        use RecordType as T;
        let alias = b"\x01b\x07example\0";
        let sets = |order: [u8; 3]| {
            let [x, y, z] = order.map(|last| [10, 0, 0, last]);
            let cname = ("a.example", T::CNAME, &alias[..]);
            message(&[
                cname,
                ("b.example", T::A, &x),
                ("b.example", T::A, &y),
                ("b.example", T::A, &z),
                ("c.example", T::A, &[1; 4]),
            ])
        };
        for (first, order) in [(0, [1, 2, 3]), (1, [2, 3, 1]), (2, [3, 1, 2])] {
            let mut rotated = sets([1, 2, 3]);
            rotate(&mut rotated, "a.example".len() + 2 + 4, |count| {
                assert_eq!(count, 3);
                first
            });
            assert_eq!(rotated, sets(order), "{first}");
        }
    }

    #[test]
    fn there_is_no_choice_among_one_address_or_other_data() {
        use RecordType as T;
        for records in [
            &[("a.example", T::A, &[10, 0, 0, 1][..])][..],
            &[("a.example", T::TXT, b"\x01x"), ("a.example", T::TXT, b"\x01y")],
            &[("a.example", T::A, &[10, 0, 0, 1]), ("b.example", T::A, &[10, 0, 0, 2])],
            &[],
        ] {
            let before = message(records);
            let mut after = before.clone();
            rotate(&mut after, 15, |_| panic!("nothing to choose"));
            assert_eq!(before, after);
        }
    }
}
