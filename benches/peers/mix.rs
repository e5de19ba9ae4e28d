//! Which name is asked for next.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::query::Name;

/// The names that everybody asks for.
pub(crate) const POPULAR: u32 = 10_000;
/// The names of a large cache.
pub(crate) const MANY: u32 = 500_000;
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
            Self::New => None,
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
            Names::Popular | Names::Mixed | Names::FifthNew => zipf(POPULAR, &mut random),
            Names::Even => (0..DRAWS).map(|_| random.random_range(0..MANY)).collect(),
            Names::New => Vec::new(),
            Names::EachPopular => (0..POPULAR).collect(),
            Names::EachMany => (0..MANY).collect(),
        };
        Self { names, draws, at: 0, new: rand::random() }
    }

    /// Whether there is always a next name.
    pub(crate) fn is_endless(&self) -> bool {
        !matches!(self.names, Names::EachPopular | Names::EachMany)
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
            Names::EachMany => self.draws.get(self.at - 1).copied().map(Name::Long),
        }
    }
}

fn zipf(names: u32, random: &mut SmallRng) -> Vec<u32> {
    let mut below = Vec::new();
    let mut sum = 0.0;
    for rank in 1..=names {
        sum += 1.0 / f64::from(rank);
        below.push(sum);
    }
    let draw = |_| below.partition_point(|limit| *limit <= random.random_range(0.0..sum));
    (0..DRAWS).map(draw).map(|rank| u32::try_from(rank).unwrap_or_default()).collect()
}
