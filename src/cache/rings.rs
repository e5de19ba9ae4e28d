//! A shard's memory: a main ring, and one where new entries are on probation once the main one is full.

use super::ring::{Place, Ring, Which};

/// The part of the memory that new entries are on probation in.
const PROBATION: usize = 8;
/// The part of that ring which one entry may take.
const PROBATION_SHARE: usize = 4;

/// Two rings; a place knows which it is in.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) main: Ring,
    pub(super) probation: Ring,
}

impl Rings {
    /// Rings that grow up to `capacity` bytes together.
    pub(super) fn new(capacity: usize) -> Self {
        let probation = capacity / PROBATION;
        Self { main: Ring::new(Which::Main, capacity - probation), probation: Ring::new(Which::Probation, probation) }
    }

    /// Overhead of rings of `capacity` bytes together: their stretches' bookkeeping, and that of one more.
    pub(super) fn overhead(capacity: usize) -> usize {
        Ring::overhead(capacity) + Ring::overhead(1)
    }

    /// The longest entry that fits.
    pub(super) fn longest(&self) -> usize {
        self.main.longest()
    }

    /// The longest entry that may be on probation.
    pub(super) fn longest_on_probation(&self) -> usize {
        self.probation.longest() / PROBATION_SHARE
    }

    /// Drops everything and gives the memory back.
    pub(super) fn clear(&mut self) {
        self.main.clear();
        self.probation.clear();
    }

    /// Resident bytes: every page ever written.
    pub(super) fn bytes(&self) -> usize {
        self.main.bytes() + self.probation.bytes()
    }

    /// The bytes from `place` to the end of its stretch.
    pub(super) fn entry(&self, place: Place) -> &[u8] {
        self.of(place.which()).entry(place)
    }

    /// The bytes from `place` to the end of its stretch, mutable.
    pub(super) fn entry_mut(&mut self, place: Place) -> &mut [u8] {
        match place.which() {
            Which::Main => self.main.entry_mut(place),
            Which::Probation => self.probation.entry_mut(place),
        }
    }

    /// Moves the oldest entry on probation, which is at `from` and `size` bytes long, to the main ring, which must have
    /// room; returns its new place.
    pub(super) fn promote(&mut self, from: Place, size: usize) -> Place {
        let to = self.main.push(size);
        self.main.entry_mut(to)[..size].copy_from_slice(&self.probation.entry(from)[..size]);
        self.probation.free_oldest(size);
        to
    }

    /// Calls `visit` with the place of each entry, dead ones too; `visit` gives the entry's size.
    pub(super) fn walk(&self, mut visit: impl FnMut(Place, &[u8]) -> usize) {
        self.main.walk(&mut visit);
        self.probation.walk(visit);
    }

    /// The stretches, the oldest of each ring first, those on probation last.
    pub(super) fn stretches(&self) -> impl Iterator<Item = (Which, usize)> + use<> {
        let main = self.main.stretches().map(|stretch| (Which::Main, stretch));
        main.chain(self.probation.stretches().map(|stretch| (Which::Probation, stretch)))
    }

    /// Calls `visit` with the place of each entry in one stretch, from its oldest to its youngest.
    pub(super) fn walk_stretch(&self, (which, stretch): (Which, usize), visit: impl FnMut(Place, &[u8]) -> usize) {
        self.of(which).walk_stretch(stretch, visit);
    }

    fn of(&self, which: Which) -> &Ring {
        match which {
            Which::Main => &self.main,
            Which::Probation => &self.probation,
        }
    }
}
