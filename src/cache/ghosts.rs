//! What was lately given up on probation: a fingerprint of each name, so that one that is asked for again passes.

use super::Hash;

/// Fingerprints by a part of the hash; a later one takes the place of an earlier.
#[derive(Debug)]
pub(super) struct Ghosts {
    /// Empty until there is one; 0 where there is none.
    fingerprints: Box<[u16]>,
    slots: usize,
}

impl Ghosts {
    /// Room for so many, a power of two.
    pub(super) fn new(slots: usize) -> Self {
        Self { fingerprints: Box::default(), slots }
    }

    /// The bytes that so many take at most.
    pub(super) const fn overhead(slots: usize) -> usize {
        slots * size_of::<u16>()
    }

    /// The bytes that are taken.
    pub(super) const fn bytes(&self) -> usize {
        Self::overhead(self.fingerprints.len())
    }

    /// Remembers a key that was given up.
    pub(super) fn remember(&mut self, hash: Hash) {
        if self.fingerprints.is_empty() {
            self.fingerprints = vec![0; self.slots].into_boxed_slice();
        }
        let (slot, fingerprint) = self.place(hash);
        self.fingerprints[slot] = fingerprint;
    }

    /// Whether a key was given up lately; it is forgotten then.
    pub(super) fn take(&mut self, hash: Hash) -> bool {
        let (slot, fingerprint) = self.place(hash);
        let is_known = self.fingerprints.get(slot) == Some(&fingerprint);
        if is_known {
            self.fingerprints[slot] = 0;
        }
        is_known
    }

    /// Forgets everything and gives the memory back.
    pub(super) fn clear(&mut self) {
        self.fingerprints = Box::default();
    }

    /// From other octets of the hash than the one that selects the shard.
    fn place(&self, hash: Hash) -> (usize, u16) {
        let [_, a, b, c, d, _, e, f] = hash.0.to_le_bytes();
        let slot = u32::from_le_bytes([a, b, c, d]) as usize & (self.slots - 1);
        (slot, u16::from_le_bytes([e, f]) | 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_once() {
        let mut ghosts = Ghosts::new(1024);
        let hashes = [1, 2, 3].map(|n: u64| Hash(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        assert!(!ghosts.take(hashes[0]) && ghosts.bytes() == 0, "nothing is taken before there is one");
        hashes.iter().for_each(|hash| ghosts.remember(*hash));
        assert_eq!(ghosts.bytes(), Ghosts::overhead(1024));
        assert!(hashes.iter().all(|hash| ghosts.take(*hash)));
        assert!(hashes.iter().all(|hash| !ghosts.take(*hash)));
        ghosts.remember(hashes[0]);
        ghosts.clear();
        assert!(!ghosts.take(hashes[0]) && ghosts.bytes() == 0);
    }
}
