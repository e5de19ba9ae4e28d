//! Suggests what an unknown key was probably meant to be.

use super::{
    super::{error::Problem, source::Place},
    keys::{TABLES, TOP},
};

/// The table of expectations that is in every such file.
const CASE: &str = "case";

/// The problem of the unknown key `name` in the table `path`, whose keys are `known`.
pub(super) fn unknown_key(place: &Place, path: &str, name: &str, known: &[&str]) -> Problem {
    let table = if path.is_empty() { "the file".to_owned() } else { format!("[{path}]") };
    if let Some(near) = nearest(name, known) {
        return Problem::at(place, format!("{table} has no key \"{name}\"; did you mean \"{near}\"?"));
    }
    if path.is_empty() && (TOP.contains(&name) || name == CASE) {
        let help = match name == CASE {
            true => "this looks like a file of expectations: `tidegate test` takes it",
            false => "this looks like a configuration: name it with --config, beside a file of expectations",
        };
        return Problem::at(place, format!("{table} has no key \"{name}\"")).help(help);
    }
    let mut tables = TABLES.iter().filter(|(header, _)| !header.is_empty());
    let elsewhere = match TOP.contains(&name) {
        true => Some("the file's top, before any [table]"),
        false => tables.find(|(_, keys)| keys().iter().any(|key| key.name == name)).map(|(header, _)| *header),
    };
    if let Some(other) = elsewhere {
        return Problem::at(place, format!("{table} has no key \"{name}\"; it belongs in {other}"));
    }
    Problem::at(place, format!("{table} has no key \"{name}\"")).help(format!("its keys are {}", known.join(", ")))
}

/// The entry of `known` that is one typing error away from `name`.
pub(in crate::config) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let folded = name.to_ascii_lowercase().replace('-', "_");
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    let (distance, near) = known.iter().map(|known| (distance(&folded, known), *known)).min()?;
    (distance <= allowed).then_some(near)
}

/// The number of insertions, deletions, replacements and swaps of neighbours between two texts.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for (i, letter) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in right.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(letter != other);
            let mut least = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *letter == right[j - 1] && left[i - 1] == *other {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_recognised_and_other_words_are_not() {
        let keys = ["listen", "allow", "deadline", "negative_ttl", "to"];
        for (typed, meant) in [
            ("lisen", Some("listen")),
            ("lsiten", Some("listen")),
            ("Listen", Some("listen")),
            ("negative-ttl", Some("negative_ttl")),
            ("deadlines", Some("deadline")),
            ("forwarders", None),
            ("x", None),
        ] {
            assert_eq!(nearest(typed, &keys), meant, "{typed}");
        }
    }
}
