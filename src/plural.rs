//! Counted nouns for people: "1 query", "2 queries".

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
}
