//! Stores many names in little memory: their octets in one allocation, found by hash.
//!
//! A name costs its octets, four for its place and about ten for the index; a map of boxed names costs ten times that.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// Octet strings, each stored once and numbered from 0 in the order they were added.
#[derive(Debug, Default)]
pub(super) struct Names {
    octets: Vec<u8>,
    /// Where each begins; it ends where the next begins.
    starts: Vec<u32>,
    index: HashTable<u32>,
}

impl Names {
    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.starts.len()
    }

    /// The number of a name that is here.
    pub(super) fn find(&self, name: &[u8]) -> Option<u32> {
        self.index.find(xxh3_64(name), |&id| self.name(id) == name).copied()
    }

    /// The number of a name, which is added if it is new; none if there is no more room.
    pub(super) fn intern(&mut self, name: &[u8]) -> Option<u32> {
        if let Some(id) = self.find(name) {
            return Some(id);
        }
        let id = u32::try_from(self.starts.len()).ok()?;
        let start = u32::try_from(self.octets.len()).ok()?;
        self.starts.push(start);
        self.octets.extend_from_slice(name);
        let Self { octets, starts, index } = self;
        index.insert_unique(xxh3_64(name), id, |&id| xxh3_64(slice(octets, starts, id)));
        Some(id)
    }

    /// The name of a number.
    pub(super) fn name(&self, id: u32) -> &[u8] {
        slice(&self.octets, &self.starts, id)
    }

    /// Frees unused capacity.
    pub(super) fn shrink(&mut self) {
        self.octets.shrink_to_fit();
        self.starts.shrink_to_fit();
    }
}

fn slice<'n>(octets: &'n [u8], starts: &[u32], id: u32) -> &'n [u8] {
    let at = place(id);
    let end = starts.get(at + 1).map_or(octets.len(), |&end| place(end));
    &octets[place(starts[at])..end]
}

/// A number of four octets as an index; targets have at least 32 bits.
pub(super) fn place(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_and_found_again() {
        let mut names = Names::default();
        let texts: Vec<String> = (0..1000).map(|n| "x".repeat(n % 7) + &n.to_string()).chain([String::new()]).collect();
        for turn in 0..2 {
            for (id, text) in (0..).zip(&texts) {
                assert_eq!(names.intern(text.as_bytes()), Some(id), "{turn} {text}");
            }
        }
        names.shrink();
        for (id, text) in (0..).zip(&texts) {
            assert_eq!((names.find(text.as_bytes()), names.name(id)), (Some(id), text.as_bytes()));
        }
        assert_eq!((names.len(), names.find(b"y")), (1001, None));
    }
}
