//! Memory that does not move: what message headers point into.

use std::{
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
};

/// A boxed slice whose elements may be pointed to while the value itself moves.
///
/// A `Box` asserts that nobody else points into it whenever it moves; this does not. All pointers come from `start`.
pub(super) struct Fixed<T> {
    start: NonNull<T>,
    length: usize,
}

// SAFETY: a `Fixed<T>` owns its elements like a box does; the pointers into it that others hold live in the same
// `Batch`, `Outbox` or `Inbox` and move between threads together with it.
unsafe impl<T> Send for Fixed<T> {}

impl<T> Fixed<T> {
    pub(super) fn new(length: usize, element: impl FnMut(usize) -> T) -> Self {
        let elements: Box<[T]> = (0..length).map(element).collect();
        let start = NonNull::from(Box::leak(elements)).cast();
        Self { start, length }
    }

    /// A pointer to the element at `index`, valid as long as `self` is not dropped.
    pub(super) fn pointer(&self, index: usize) -> *mut T {
        assert!(index < self.length, "an element of {}, not number {index}", self.length);
        // SAFETY: `index` is within the allocation that `start` points to.
        unsafe { self.start.as_ptr().add(index) }
    }
}

impl<T> Deref for Fixed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `start` points to `length` initialised elements that `self` owns; the kernel writes to them only
        // within calls that borrow their owner mutably.
        unsafe { NonNull::slice_from_raw_parts(self.start, self.length).as_ref() }
    }
}

impl<T> DerefMut for Fixed<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and `self` is borrowed mutably.
        unsafe { NonNull::slice_from_raw_parts(self.start, self.length).as_mut() }
    }
}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        let elements = ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.length);
        // SAFETY: `new` leaked a box of this start and length, and nobody else frees it.
        drop(unsafe { Box::from_raw(elements) });
    }
}
