//! Entries as callers see them, decoded one at a time.

use super::{CacheKey, Integrity, Stamp, entry::Entry};

/// An entry as callers see it.
#[derive(Debug, Clone, Copy)]
pub struct EntryView<'a> {
    /// Its key.
    pub key: CacheKey<'a>,
    /// The message, its id zero, its TTLs as they were when it was stored.
    pub message: &'a [u8],
    /// Where in the message the TTLs stand.
    pub ttl_offsets: &'a [u16],
    /// When it was stored, in seconds.
    pub stored_at: u32,
    /// Seconds that it is good for from then.
    pub lifetime: u32,
    /// The rules it was made under.
    pub stamp: Stamp,
    /// Whether the guard removed addresses.
    pub integrity: Integrity,
}

/// Buffers to show entries from.
#[derive(Debug, Default)]
pub(super) struct Showcase {
    message: Vec<u8>,
    ttl_offsets: Vec<u16>,
}

impl Showcase {
    /// Decodes an entry.
    pub(super) fn show<'a>(&'a mut self, entry: Entry<'a>) -> EntryView<'a> {
        let key = entry.key();
        self.message.resize(entry.length(), 0);
        entry.copy_to(&mut self.message, key.name.len(), |ttl| ttl);
        self.ttl_offsets.clear();
        entry.for_each_ttl(key.name.len(), |offset| self.ttl_offsets.push(offset));
        EntryView {
            key,
            message: &self.message,
            ttl_offsets: &self.ttl_offsets,
            stored_at: entry.stored_at(),
            lifetime: entry.lifetime(),
            stamp: entry.stamp(),
            integrity: entry.integrity(),
        }
    }
}
