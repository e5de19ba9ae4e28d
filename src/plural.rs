//! Counted nouns for people, "1 query", "2 queries"; lists that fit a sentence.

use std::fmt;

/// A number and the noun that it counts, in the singular.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plural<N>(pub N, pub &'static str);

impl<N: PartialEq + From<u8>> Plural<N> {
    /// The noun alone, in the form that the number asks for.
    pub fn noun(&self) -> String {
        let Self(number, noun) = self;
        if *number == N::from(1) {
            return (*noun).to_owned();
        }
        match noun.strip_suffix('y') {
            Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
            _ if noun.ends_with(['s', 'x']) => format!("{noun}es"),
            _ => format!("{noun}s"),
        }
    }
}

impl<N: fmt::Display + PartialEq + From<u8>> fmt::Display for Plural<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.noun())
    }
}

/// The most that [`listed`] names.
const MOST_LISTED: usize = 10;

/// What a list holds, for a sentence: the first of it, and how many more there are.
pub fn listed<T: fmt::Display>(all: &[T]) -> String {
    let (named, more) = all.split_at(all.len().min(MOST_LISTED));
    let named: Vec<String> = named.iter().map(ToString::to_string).collect();
    match more.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_follow_their_number() {
        for (number, noun, expected) in [
            (1, "query", "1 query"),
            (0, "query", "0 queries"),
            (2, "entry", "2 entries"),
            (2, "key", "2 keys"),
            (1, "address", "1 address"),
            (2, "address", "2 addresses"),
            (21, "server", "21 servers"),
        ] {
            assert_eq!(Plural(number, noun).to_string(), expected);
        }
    }

    #[test]
    fn a_long_list_ends_with_a_number() {
        assert_eq!(listed(&["a", "b"]), "a, b");
        let all: Vec<u8> = (1..=12).collect();
        assert_eq!(listed(&all[..10]), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10");
        assert_eq!(listed(&all), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
    }
}
