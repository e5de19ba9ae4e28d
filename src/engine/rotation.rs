//! Which of several addresses a reply begins with: at random, for each reply anew, by a generator that each thread has for
//! itself. A counter would not do: who always asks for A and AAAA in turn would get every second one.

use std::cell::Cell;

thread_local! {
    /// The state of an xorshift generator, never zero. Nothing but the spread of load hangs on it.
    static STATE: Cell<u64> = Cell::new(rand::random::<u64>() | 1);
}

/// A number below `count`, which is at most 2^32.
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
    fn every_one_of_them_comes_first_as_often() {
        let mut counts = [0_u32; 3];
        for _ in 0..3000 {
            counts[choose(3)] += 1;
        }
        // Nine standard deviations.
        assert!(counts.iter().all(|count| (770..1230).contains(count)), "{counts:?}");
    }
}
