//! Which name is asked for next.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::query::Name;

/// The names that everybody asks for.
pub(crate) const POPULAR: u32 = 10_000;
/// The names of a large cache.
pub(crate) const MANY: u32 = 500_000;
/// The names of a site whose cache is too small.
pub(crate) const SITE: u32 = 1_000_000;
/// Draws from the names of a site in one run, after which it ends.
const SITE_DRAWS: usize = 1_000_000;
/// Draws made ahead, so that a question costs the load generator nothing; asked again from the start when used up.
const DRAWS: usize = 1 << 20;

/// A kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Names {
    /// Zipf over the popular names: the n-th is asked for 1/n times as often as the first.
    Popular,
    /// Each name once.
    New,
    /// As popular, but every tenth is new.
    Mixed,
    /// As popular, but every fifth is new.
    FifthNew,
    /// Evenly over the many names.
    Even,
    /// Zipf with exponent 0.9 over a million names, to the end of a list.
    Skew09,
    /// The same with exponent 1.0.
    Skew10,
    /// As the last, but every second name is new and never asked for again.
    Flood,
    /// Every popular name once.
    EachPopular,
    /// Every one of the many names once.
    EachMany,
}

impl Names {
    /// The kind that asks each name once which this one asks again and again, if there is any.
    pub(crate) const fn each(self) -> Option<Self> {
        match self {
            Self::Popular | Self::Mixed | Self::FifthNew | Self::EachPopular => Some(Self::EachPopular),
            Self::Even | Self::EachMany => Some(Self::EachMany),
            Self::New | Self::Skew09 | Self::Skew10 | Self::Flood => None,
        }
    }
}

/// Names without end, or to the end of a list.
pub(crate) struct Mix {
    names: Names,
    draws: Vec<u32>,
    at: usize,
    new: u64,
}

impl Mix {
    /// Names of a kind. What is new has never been asked for by an earlier run either.
    pub(crate) fn new(names: Names) -> Self {
        let mut random: SmallRng = SmallRng::seed_from_u64(1);
        let draws = match names {
            Names::Popular | Names::Mixed | Names::FifthNew => zipf(POPULAR, 1.0, DRAWS, &mut random),
            Names::Skew09 => site(0.9),
            Names::Skew10 | Names::Flood => site(1.0),
            Names::Even => (0..DRAWS).map(|_| random.random_range(0..MANY)).collect(),
            Names::New => Vec::new(),
            Names::EachPopular => (0..POPULAR).collect(),
            Names::EachMany => (0..MANY).collect(),
        };
        Self { names, draws, at: 0, new: rand::random() }
    }

    /// Whether there is always a next name.
    pub(crate) fn is_endless(&self) -> bool {
        use Names::{EachMany, EachPopular, Flood, Skew09, Skew10};
        !matches!(self.names, EachPopular | EachMany | Skew09 | Skew10 | Flood)
    }

    fn fresh(&mut self) -> Name {
        self.new = self.new.wrapping_add(1);
        Name::New(self.new)
    }
}

impl Iterator for Mix {
    type Item = Name;

    fn next(&mut self) -> Option<Name> {
        self.at += 1;
        let draw = self.draws.get((self.at - 1) & (DRAWS - 1)).copied();
        match self.names {
            Names::New => Some(self.fresh()),
            Names::Mixed if self.at.is_multiple_of(10) => Some(self.fresh()),
            Names::FifthNew if self.at.is_multiple_of(5) => Some(self.fresh()),
            Names::Popular | Names::Mixed | Names::FifthNew => draw.map(Name::Popular),
            Names::Even => draw.map(Name::Long),
            Names::EachPopular => self.draws.get(self.at - 1).copied().map(Name::Popular),
            Names::EachMany | Names::Skew09 | Names::Skew10 => self.draws.get(self.at - 1).copied().map(Name::Long),
            Names::Flood if self.at / 2 >= self.draws.len() => None,
            Names::Flood if self.at.is_multiple_of(2) => Some(self.fresh()),
            Names::Flood => self.draws.get(self.at / 2).copied().map(Name::Long),
        }
    }
}

/// Draws from a million names, others in each run.
pub(crate) fn site(exponent: f64) -> Vec<u32> {
    let mut random: SmallRng = SmallRng::seed_from_u64(rand::random());
    zipf(SITE, exponent, SITE_DRAWS, &mut random)
}

/// So many draws from names of which the n-th has the weight n to the power of minus `exponent`.
fn zipf(names: u32, exponent: f64, draws: usize, random: &mut SmallRng) -> Vec<u32> {
    let mut below = Vec::new();
    let mut sum = 0.0;
    for rank in 1..=names {
        sum += f64::from(rank).powf(-exponent);
        below.push(sum);
    }
    let draw = |_| {
        let at = random.random_range(0.0..sum);
        below.partition_point(|limit| *limit <= at)
    };
    (0..draws).map(draw).map(|rank| u32::try_from(rank).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn popular_names_are_asked_for_as_often_as_zipf_has_it() {
        let draws = zipf(10_000, 1.0, 100_000, &mut SmallRng::seed_from_u64(1));
        // The sum of 1/n up to 10,000 is 9.788.
        for (rank, expected) in [(0, 10_217), (1, 5_108), (9, 1_022), (99, 102)] {
            let times = draws.iter().filter(|draw| **draw == rank).count();
            assert!(times.abs_diff(expected) * 4 < expected, "{times} of 100,000 for rank {rank}, not {expected}");
        }
    }
}
