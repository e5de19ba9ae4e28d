//! The files of `src/` as text: their code without comments and strings, and the paths that it mentions.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of `src/`.
pub(crate) struct Source {
    /// Below `src/`, without `.rs`.
    pub(crate) path: String,
    /// Without comments and strings.
    pub(crate) code: String,
    /// Also without code that is compiled only for tests.
    pub(crate) product: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = bare(text);
        let product = without_tests(&code);
        Self { path: path.to_owned(), code, product }
    }

    pub(crate) fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or(&self.path)
    }

    /// The folder or file of `upstream` that it belongs to.
    pub(crate) fn folder(&self) -> Option<&str> {
        let within = self.path.strip_prefix("upstream/")?;
        within.split('/').next().filter(|folder| *folder != "mod")
    }

    /// How many `super::` lead from this file's own module to the crate's root.
    pub(crate) fn depth(&self) -> usize {
        let inner = self.path.strip_suffix("/mod").unwrap_or(&self.path);
        inner.split('/').count()
    }
}

pub(crate) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|file| {
            let path = file.strip_prefix(&root).expect("it is below src").with_extension("");
            (path.to_string_lossy().into_owned(), fs::read_to_string(file).expect("src is readable"))
        })
        .collect();
    let for_tests: Vec<String> = texts.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let mut sources: Vec<Source> = texts.iter().map(|(path, text)| Source::new(path, text)).collect();
    for source in &mut sources {
        if for_tests.iter().any(|module| source.path == *module || source.path.starts_with(&format!("{module}/"))) {
            source.product.clear();
        }
    }
    assert!(sources.len() > 10, "src/ was not found");
    sources
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The files that `#[cfg(test)] mod name;` brings in.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let folder = match path.rsplit_once('/') {
        Some((folder, "mod")) => format!("{folder}/"),
        _ if path == "lib" => String::new(),
        _ => format!("{path}/"),
    };
    let mut modules = Vec::new();
    for rest in text.split("#[cfg(test)]").skip(1) {
        let item = rest.trim_start();
        let declared = item.strip_prefix("mod ").or_else(|| item.strip_prefix("pub(crate) mod "));
        let name = declared.and_then(|rest| rest.split_once(';')).map(|(name, _)| name.trim());
        modules.extend(name.filter(|name| is_word(name)).map(|name| format!("{folder}{name}")));
    }
    modules
}

/// The paths behind each `prefix`, groups in braces taken apart.
pub(crate) fn mentions(code: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in code.split(prefix).skip(1) {
        paths(rest, "", &mut found);
    }
    found
}

/// Collects the paths of the tree that `text` begins with, each behind `base`. Gives the tree's length.
fn paths(text: &str, base: &str, found: &mut Vec<String>) -> usize {
    let mut at = text.len() - text.trim_start().len();
    if text[at..].starts_with('{') {
        while text[at..].starts_with(['{', ',']) {
            at += 1 + paths(&text[at + 1..], base, found);
            // Behind a path may stand `as name`.
            at += text[at..].find([',', '}']).unwrap_or(text.len() - at);
        }
        return text.len().min(at + 1);
    }
    let word = text[at..].find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len() - at);
    let path = format!("{base}{}", &text[at..at + word]);
    at += word;
    if word > 0 && text[at..].starts_with("::") {
        return at + 2 + paths(&text[at + 2..], &format!("{path}::"), found);
    }
    if word > 0 {
        found.push(path);
    }
    at
}

pub(crate) fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
}

/// The code without comments, strings and character literals.
fn bare(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if letter == '"' {
            string_length(rest)
        } else if let Some(hashes) = raw_string_hashes(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len())
        } else if letter == '\'' {
            character_length(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(letter);
            rest = &rest[letter.len_utf8()..];
        } else {
            code.push(' ');
            rest = &rest[skipped..];
        }
    }
    code
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_hashes(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('r')?;
    let hashes = rest.bytes().take_while(|&byte| byte == b'#').count();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// The length of a character literal, 0 for a lifetime.
fn character_length(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match (letters.next(), letters.next()) {
        (Some((_, '\\')), Some(_)) => text[3..].find('\'').map_or(0, |at| 3 + at + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// The code without the items that `#[cfg(test)]` marks.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut parts = code.split("#[cfg(test)]");
    kept.push_str(parts.next().unwrap_or_default());
    for part in parts {
        kept.push_str(&part[item_length(part)..]);
    }
    kept
}

/// The length of the item that begins here: up to its semicolon, or the end of its braces.
fn item_length(code: &str) -> usize {
    let mut depth = 0;
    for (at, letter) in code.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => continue,
        }
        if depth == 0 && letter == '}' {
            return at + 1;
        }
    }
    code.len()
}
