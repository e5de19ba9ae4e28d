//! `tidegate.toml(5)`: the reference file, with its comments as text.
//!
//! The file explains a key in the comment after it, which continues in indented comments. Comments at the margin are
//! paragraphs, and one between dashes is a heading.

use super::roff::Page;

const REFERENCE: &str = include_str!("../../../config/reference.toml");

/// The page.
pub(super) fn page(date: &str) -> String {
    let mut page = Page::new("tidegate.toml", 5, date, "configuration of the tidegate DNS gateway");
    page.section("DESCRIPTION");
    let (head, keys) = REFERENCE.split_once("\n\n").unwrap_or((REFERENCE, ""));
    description(&mut page, head);
    page.section("KEYS");
    for entry in entries(keys) {
        entry.write(&mut page);
    }
    page.section("FILES");
    page.item("`/etc/tidegate/tidegate.toml`", "The file that is read unless another is named.");
    let verbs = ["tidegate", "tidegate-check", "tidegate-reload"].map(|name| (name.to_owned(), 1));
    page.references(&verbs);
    page.finish()
}

/// The comment at the top: paragraphs, and indented lines, which are kept as they are.
fn description(page: &mut Page, head: &str) {
    let lines: Vec<&str> = head.lines().map(|line| line.strip_prefix('#').unwrap_or(line)).collect();
    for block in
        lines.chunk_by(|one, other| one.trim().is_empty() == other.trim().is_empty() && is_code(one) == is_code(other))
    {
        if block.iter().all(|line| line.trim().is_empty()) {
            page.paragraph();
        } else if block.iter().all(|line| is_code(line)) {
            page.literal(block.iter().map(|line| line.trim_start_matches("   ")));
        } else {
            page.text(&block.join(" "));
        }
    }
}

fn is_code(line: &str) -> bool {
    line.starts_with("   ")
}

/// A piece of the file with its explanation.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry<'a> {
    /// Lines of TOML; none for a comment on its own.
    code: Vec<&'a str>,
    text: String,
}

impl Entry<'_> {
    fn write(&self, page: &mut Page) {
        let text = self.text.trim();
        match self.code.as_slice() {
            [] if text.starts_with("---") => page.part(text.trim_matches(['-', ' '])),
            [] => {
                page.paragraph();
                page.text(text);
            }
            [table] if table.starts_with('[') => {
                page.part(table);
                page.text(text);
            }
            [key] if text.is_empty() => {
                page.paragraph();
                page.text(&format!("`{}`", aligned(key)));
            }
            [key] => page.item(&format!("`{}`", aligned(key)), text),
            lines => {
                page.paragraph();
                page.literal(lines.iter().copied());
                page.paragraph();
                page.text(text);
            }
        }
    }
}

/// A key and its value, without the spaces that align a column.
fn aligned(line: &str) -> String {
    match line.split_once('=') {
        Some((key, value)) => format!("{} = {}", key.trim(), value.trim()),
        None => line.to_owned(),
    }
}

fn entries(keys: &str) -> Vec<Entry<'_>> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut depth = 0;
    for line in keys.lines().filter(|line| !line.trim().is_empty()) {
        let (code, comment) = split(line);
        let goes_on = depth > 0 || (code.is_empty() && line.starts_with(' '));
        match entries.last_mut().filter(|_| goes_on) {
            Some(entry) => {
                let about = if code.is_empty() || comment.is_empty() { String::new() } else { format!("`{code}`: ") };
                entry.code.extend(
                    (!code.is_empty()).then(|| line[..line.len() - comment.len()].trim_end_matches([' ', '#'])),
                );
                entry.text += &format!(" {about}{comment}");
            }
            None => {
                let code = Vec::from_iter((!code.is_empty()).then_some(code));
                entries.push(Entry { code, text: comment.to_owned() });
            }
        }
        if !code.starts_with('[') {
            depth += code.matches('[').count();
            depth = depth.saturating_sub(code.matches(']').count());
        }
    }
    entries
}

/// A line's TOML and its comment.
fn split(line: &str) -> (&str, &str) {
    let mut is_quoted = false;
    for (at, character) in line.char_indices() {
        match character {
            '"' => is_quoted = !is_quoted,
            '#' if !is_quoted => return (line[..at].trim(), line[at + 1..].trim()),
            _ => {}
        }
    }
    (line.trim(), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_belong_to_the_key_they_stand_behind() {
        let keys = "\
# --- part ---
[table]   # about it
a = \"#1\"  # one
          # more
b = [     # several
  \"x\",    # the first
]
# a paragraph
";
        let entry = |code: &[&'static str], text: &str| Entry { code: code.to_vec(), text: text.to_owned() };
        assert_eq!(
            entries(keys),
            [
                entry(&[], "--- part ---"),
                entry(&["[table]"], "about it"),
                entry(&["a = \"#1\""], "one more"),
                entry(&["b = [", "  \"x\",", "]"], "several `\"x\",`: the first "),
                entry(&[], "a paragraph"),
            ]
        );
    }
}
