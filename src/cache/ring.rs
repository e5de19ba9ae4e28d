//! A ring of bytes, in stretches that are taken from the allocator one by one.
//!
//! Stretches, because a single large allocation may become resident all at once (transparent huge pages), and because
//! an entry within one stretch needs no care at the seam.
//!
//! Invariants:
//! - An entry lies within one stretch.
//! - In the current stretch, `..head` is of this round, `head..tail` is free, `tail..old_end` is of the round before;
//!   when the tail has reached `old_end`, everything behind the head is free.
//! - In any other stretch, `..end` is in use. From oldest to newest they are: those after the current one, then those
//!   before it.

/// The largest stretch.
pub(super) const STRETCH: usize = 1 << 16;
/// Page size of the kernel.
const PAGE: usize = 4096;

/// The most bytes of a ring.
const LARGEST: usize = 1 << 31;

/// Which of a shard's two rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// The ring that most of the memory goes to.
    Main,
    /// The ring of new entries, once the main one is full.
    Probation,
}

/// Where an entry starts: the ring in the highest bit, the others the bytes from the start of its first stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    const PROBATION: u32 = 1 << 31;

    fn new(which: Which, stretch: usize, at: usize) -> Self {
        let place = u32::try_from(stretch * STRETCH + at).expect("a ring holds less than 2^31 bytes");
        match which {
            Which::Main => Self(place),
            Which::Probation => Self(place | Self::PROBATION),
        }
    }

    /// The ring it is in.
    pub(super) fn which(self) -> Which {
        if self.0 & Self::PROBATION == 0 { Which::Main } else { Which::Probation }
    }

    fn bytes(self) -> usize {
        (self.0 & !Self::PROBATION) as usize
    }

    fn stretch(self) -> usize {
        self.bytes() / STRETCH
    }

    fn at(self) -> usize {
        self.bytes() % STRETCH
    }
}

#[derive(Debug)]
struct Stretch {
    bytes: Box<[u8]>,
    end: usize,
    /// Highest end so far; the bytes behind it were never written.
    reached: usize,
}

/// The ring; the module describes it.
#[derive(Debug)]
pub(super) struct Ring {
    which: Which,
    stretches: Vec<Stretch>,
    capacity: usize,
    current: usize,
    head: usize,
    tail: usize,
    old_end: usize,
}

impl Ring {
    /// A ring that grows up to `capacity` bytes.
    pub(super) fn new(which: Which, capacity: usize) -> Self {
        let capacity = capacity.min(LARGEST);
        let mut ring = Self { which, stretches: Vec::new(), capacity, current: 0, head: 0, tail: 0, old_end: 0 };
        ring.clear();
        ring
    }

    /// Overhead of a ring of `capacity` bytes: its stretches' bookkeeping.
    pub(super) fn overhead(capacity: usize) -> usize {
        // The allocator's own header on each.
        capacity.div_ceil(STRETCH) * (size_of::<Stretch>() + 16)
    }

    /// The longest entry that fits.
    pub(super) fn longest(&self) -> usize {
        self.capacity.min(STRETCH)
    }

    /// Drops everything and gives the memory back.
    pub(super) fn clear(&mut self) {
        self.stretches = Vec::with_capacity(self.capacity.div_ceil(STRETCH));
        (self.current, self.head, self.tail, self.old_end) = (0, 0, 0, 0);
    }

    /// Resident bytes: every page ever written.
    pub(super) fn bytes(&self) -> usize {
        let reached = |(index, stretch): (usize, &Stretch)| {
            let reached = if index == self.current { stretch.reached.max(self.head) } else { stretch.reached };
            reached.next_multiple_of(PAGE).min(stretch.bytes.len())
        };
        let stretches: usize = self.stretches.iter().enumerate().map(reached).sum();
        stretches + Self::overhead(self.capacity)
    }

    /// The bytes from `place` to the end of its stretch.
    pub(super) fn entry(&self, place: Place) -> &[u8] {
        &self.stretches[place.stretch()].bytes[place.at()..]
    }

    /// The bytes from `place` to the end of its stretch, mutable.
    pub(super) fn entry_mut(&mut self, place: Place) -> &mut [u8] {
        &mut self.stretches[place.stretch()].bytes[place.at()..]
    }

    /// Whether an entry of `size` bytes can be pushed.
    pub(super) fn has_room(&self, size: usize) -> bool {
        let Some(stretch) = self.stretches.get(self.current) else { return false };
        let limit = if self.tail < self.old_end { self.tail } else { stretch.bytes.len() };
        self.head + size <= limit
    }

    /// Allocates `size` bytes at the head. There must be room.
    pub(super) fn push(&mut self, size: usize) -> Place {
        let place = Place::new(self.which, self.current, self.head);
        self.head += size;
        place
    }

    /// The oldest entry, if it lies in the current stretch.
    pub(super) fn oldest(&self) -> Option<Place> {
        (self.tail < self.old_end).then(|| Place::new(self.which, self.current, self.tail))
    }

    /// Whether it has no entry, not even a dead one.
    pub(super) fn is_empty(&self) -> bool {
        let mut others = self.stretches.iter().enumerate().filter(|(index, _)| *index != self.current);
        self.head == 0 && self.oldest().is_none() && others.all(|(_, stretch)| stretch.end == 0)
    }

    /// Frees the oldest entry, which is `size` bytes long.
    pub(super) fn free_oldest(&mut self, size: usize) {
        self.tail += size;
    }

    /// Moves the oldest entry, which is `size` bytes long, to the head; returns its new place.
    pub(super) fn keep_oldest(&mut self, size: usize) -> Place {
        let bytes = &mut self.stretches[self.current].bytes;
        bytes.copy_within(self.tail..self.tail + size, self.head);
        self.tail += size;
        self.push(size)
    }

    /// Moves on to the next stretch once the current one has no old entry left. That is a new one while `growth` and the
    /// capacity allow, else the oldest.
    pub(super) fn advance(&mut self, growth: Growth) {
        if let Some(stretch) = self.stretches.get_mut(self.current) {
            stretch.end = self.head;
            stretch.reached = stretch.reached.max(self.head);
        }
        let taken = self.stretches.len() * STRETCH;
        let is_last = self.current + 1 >= self.stretches.len();
        self.current = if !is_last {
            self.current + 1
        } else if taken < self.capacity && (growth == Growth::Allowed || self.stretches.is_empty()) {
            let bytes = vec![0; STRETCH.min(self.capacity - taken)].into_boxed_slice();
            self.stretches.push(Stretch { bytes, end: 0, reached: 0 });
            self.stretches.len() - 1
        } else {
            0
        };
        (self.head, self.tail) = (0, 0);
        self.old_end = self.stretches.get(self.current).map_or(0, |stretch| stretch.end);
    }

    /// Calls `visit` with the place of each entry, dead ones too; `visit` gives the entry's size.
    pub(super) fn walk(&self, mut visit: impl FnMut(Place, &[u8]) -> usize) {
        self.stretches().for_each(|stretch| self.walk_stretch(stretch, &mut visit));
    }

    /// The stretches, the oldest first; the current one, which has young entries and old, is the last.
    pub(super) fn stretches(&self) -> impl Iterator<Item = usize> + use<> {
        let count = self.stretches.len();
        (self.current + 1..count).chain(0..count.min(self.current + 1))
    }

    /// [`Ring::walk`] in one stretch, from its oldest entry to its youngest.
    pub(super) fn walk_stretch(&self, index: usize, mut visit: impl FnMut(Place, &[u8]) -> usize) {
        let Some(stretch) = self.stretches.get(index) else { return };
        let spans = match index == self.current {
            true => [self.tail..self.old_end, 0..self.head],
            false => [0..stretch.end, 0..0],
        };
        for span in spans {
            let mut at = span.start;
            while at < span.end {
                at += visit(Place::new(self.which, index, at), &stretch.bytes[at..]);
            }
        }
    }
}

/// Whether a ring may take more memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// A new stretch may be allocated.
    Allowed,
    /// Only stretches that exist are used.
    Forbidden,
}
