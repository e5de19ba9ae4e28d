//! Estimates how many different clients asked for a name, in 32 octets a name.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

/// An estimate by linear counting over 256 bits: exact for one client, within 10 % up to some hundreds, at most
/// [`Clients::MOST`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clients([u64; 4]);

impl Clients {
    const BITS: u32 = 256;
    /// The estimate for a full bitmap.
    const MOST: u32 = 1420;

    pub(super) fn add(&mut self, client: IpAddr) {
        let hash = match client.to_canonical() {
            IpAddr::V4(address) => xxh3_64(&address.octets()),
            // A host can use any number of addresses within its /64.
            IpAddr::V6(address) => xxh3_64(&address.octets()[..8]),
        };
        let bit = hash % u64::from(Self::BITS);
        self.0[(bit / 64) as usize] |= 1 << (bit % 64);
    }

    pub(super) fn estimate(self) -> u32 {
        let free = Self::BITS - self.0.iter().map(|word| word.count_ones()).sum::<u32>();
        if free == 0 {
            return Self::MOST;
        }
        let bits = f64::from(Self::BITS);
        let estimate = (bits * (bits / f64::from(free)).ln()).round();
        (0..=Self::MOST).find(|&count| f64::from(count) >= estimate).unwrap_or(Self::MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_about_right_and_bounded() {
        let count = |clients: u32| {
            let mut set = Clients::default();
            for client in 0..clients {
                set.add(IpAddr::from((0x0a00_0000 + client * 7).to_be_bytes()));
            }
            set.estimate()
        };
        assert_eq!((count(0), count(1)), (0, 1));
        assert!((9..=11).contains(&count(10)), "{}", count(10));
        assert!((170..=230).contains(&count(200)), "{}", count(200));
        assert_eq!(count(1_000_000), Clients::MOST);
        let mut one_host = Clients::default();
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8::3"] {
            one_host.add(address.parse().unwrap());
        }
        assert_eq!(one_host.estimate(), 1);
    }
}
