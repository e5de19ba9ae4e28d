//! Picks the address that a reply begins with, at random for each reply.
//!
//! A counter would not do: a client that asks for A and AAAA in turn would get only every second address.

use std::cell::Cell;

thread_local! {
    /// State of this thread's xorshift generator, never zero. It only spreads load, so it need not be unpredictable.
    static STATE: Cell<u64> = Cell::new(rand::random::<u64>() | 1);
}

/// Random number below `count`, which is at most 2^32.
pub(super) fn choose(count: usize) -> usize {
    let random = STATE.with(|state| {
        let mut bits = state.get();
        bits ^= bits << 13;
        bits ^= bits >> 7;
        bits ^= bits << 17;
        state.set(bits);
        bits >> 32
    });
    usize::try_from((random * count as u64) >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_comes_first_equally_often() {
        let mut counts = [0_u32; 3];
        for _ in 0..3000 {
            counts[choose(3)] += 1;
        }
        // Nine standard deviations.
        assert!(counts.iter().all(|count| (770..1230).contains(count)), "{counts:?}");
    }
}
