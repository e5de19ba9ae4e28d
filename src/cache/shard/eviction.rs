//! Who goes when there is no room; the policy is in [`crate::cache`].

use super::Shard;
use crate::cache::{
    Hash, Stamp,
    entry::{self, Entry, Flag},
    ring::{Growth, Place},
    rings::Rings,
};

/// Most entries that one insertion keeps, or moves from probation to the main ring.
pub const MOVES: usize = 32;

/// How strong a claim to room an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Its key had no entry.
    New,
    /// The same, but it had one lately, which nobody asked for.
    Again,
    /// It replaces an entry that was stored.
    Renewed,
}

impl Shard {
    /// Makes room for a new entry; none if what was asked for is in the way. On probation are those that nothing speaks
    /// for yet, once the main ring is full, and are not too large for it.
    pub(super) fn allot(
        &mut self,
        size: usize,
        hash: Hash,
        claim: Claim,
        is_protected: impl Fn(Stamp) -> bool,
    ) -> Option<Place> {
        let mut moves = MOVES;
        let is_proven = claim == Claim::Renewed || size > self.rings.longest_on_probation() || self.fills_up(size);
        let claim = if !is_proven && self.ghosts.take(hash) { Claim::Again } else { claim };
        if (is_proven || claim == Claim::Again) && self.make_room(size, 1, claim, &mut moves, &is_protected) {
            return Some(self.rings.main.push(size));
        }
        let has_room = !is_proven && self.make_room_on_probation(size, &mut moves, &is_protected);
        has_room.then(|| self.rings.probation.push(size))
    }

    /// Whether the main ring takes so much without losing an entry; once it did not, it is full until all is cleared.
    fn fills_up(&mut self, size: usize) -> bool {
        while !self.is_full {
            if self.table.len() >= self.max_in_main() || self.rings.main.oldest().is_some() {
                self.is_full = true;
            } else if self.rings.main.has_room(size) {
                return true;
            } else {
                self.rings.main.advance(Growth::Allowed);
            }
        }
        false
    }

    /// Takes the oldest entries on probation until `size` bytes fit there: those that were asked for go to the main ring.
    /// False if that has no room for them.
    fn make_room_on_probation(
        &mut self,
        size: usize,
        moves: &mut usize,
        is_protected: &impl Fn(Stamp) -> bool,
    ) -> bool {
        loop {
            let has_slot = self.has_slots(1);
            if has_slot && self.rings.probation.has_room(size) {
                return true;
            }
            let Some(place) = self.rings.probation.oldest() else {
                if has_slot || !self.rings.probation.is_empty() {
                    self.rings.probation.advance(Growth::Allowed);
                } else if !self.make_room(0, 1, Claim::New, moves, is_protected) {
                    return false;
                }
                continue;
            };
            let entry = Entry(self.rings.entry(place));
            let (length, hash) = (entry.size(), entry.hash());
            let is_asked_for = entry.has(Flag::VISITED);
            if entry.has(Flag::DEAD) {
                self.rings.probation.free_oldest(length);
            } else if *moves > 0 && (is_asked_for || is_protected(entry.stamp())) {
                *moves -= 1;
                if !self.make_room(length, 0, Claim::New, moves, is_protected) {
                    return false;
                }
                self.move_entry(place, hash, |rings| rings.promote(place, length));
            } else if is_asked_for {
                return false;
            } else if self.has_freed(length) {
                self.move_entry(place, hash, |rings| rings.promote(place, length));
            } else {
                self.evict(place, hash);
                self.ghosts.remember(hash);
                self.rings.probation.free_oldest(length);
            }
        }
    }

    /// Whether the main ring has room where entries were removed.
    fn has_freed(&mut self, size: usize) -> bool {
        if self.table.len() > self.max_in_main() {
            return false;
        }
        while !self.rings.main.has_room(size) {
            match self.rings.main.oldest() {
                None => self.rings.main.advance(Growth::Forbidden),
                Some(place) => {
                    let entry = Entry(self.rings.entry(place));
                    if !entry.has(Flag::DEAD) {
                        return false;
                    }
                    let length = entry.size();
                    self.rings.main.free_oldest(length);
                }
            }
        }
        true
    }

    /// Takes the oldest entries of the main ring until `size` bytes fit at its head and the table has so many free slots;
    /// false if those in the way have a better claim. It ends: at most `moves` entries are kept, and an empty ring has
    /// room for any size that `insert` lets through.
    fn make_room(
        &mut self,
        size: usize,
        slots: usize,
        claim: Claim,
        moves: &mut usize,
        is_protected: &impl Fn(Stamp) -> bool,
    ) -> bool {
        loop {
            let has_slot = self.has_slots(slots);
            if has_slot && self.rings.main.has_room(size) {
                return true;
            }
            let Some(place) = self.rings.main.oldest() else {
                self.rings.main.advance(if has_slot { Growth::Allowed } else { Growth::Forbidden });
                continue;
            };
            let entry = Entry(self.rings.entry(place));
            let (length, hash) = (entry.size(), entry.hash());
            if entry.has(Flag::DEAD) {
                self.rings.main.free_oldest(length);
                continue;
            }
            let is_asked_for = entry.has(Flag::VISITED);
            let stays = is_asked_for || is_protected(entry.stamp());
            if stays && *moves > 0 {
                *moves -= 1;
                self.move_entry(place, hash, |rings| rings.main.keep_oldest(length));
            } else if (stays && claim == Claim::Again) || (is_asked_for && claim == Claim::New) {
                return false;
            } else {
                self.evict(place, hash);
                self.rings.main.free_oldest(length);
            }
        }
    }

    fn evict(&mut self, place: Place, hash: Hash) {
        self.drop_entry(place, hash);
        self.evictions += 1;
    }

    /// Moves an entry, which loses its mark.
    fn move_entry(&mut self, from: Place, hash: Hash, by: impl FnOnce(&mut Rings) -> Place) {
        entry::unset(self.rings.entry_mut(from), Flag::VISITED);
        let to = by(&mut self.rings);
        if let Some(place) = self.table.find_mut(hash.0, |&other| other == from) {
            *place = to;
        }
    }

    /// Whether so many more entries find a place in the table.
    fn has_slots(&self, slots: usize) -> bool {
        self.table.len() + slots <= self.max_entries()
    }

    /// The entries up to which the main ring takes those that nothing speaks for yet.
    fn max_in_main(&self) -> usize {
        self.max_entries() / 8 * 7
    }
}
