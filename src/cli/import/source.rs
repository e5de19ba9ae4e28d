//! The files of an old configuration: in any encoding, with their includes, within limits.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::site::{Place, Site};
use crate::system_error::SystemError;

/// The most files of one configuration.
const MOST_FILES: usize = 1000;
/// How deep they may include each other.
const DEEPEST: usize = 16;
/// The most octets of all files. Lists of blocked names are long.
const MOST_OCTETS: usize = 64 << 20;

/// A file that was read.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) name: Arc<str>,
    pub(super) text: Arc<str>,
    folder: PathBuf,
    depth: usize,
}

impl Source {
    /// A line of it, the first being 1.
    pub(super) fn place(&self, line: usize) -> Place {
        Place { file: Arc::clone(&self.name), line }
    }

    /// A path as this file writes it.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text)
    }
}

/// Reads files, and counts what it has read.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: usize,
    octets: usize,
}

impl Files {
    /// The file that was named on the command line.
    pub(super) fn first(&mut self, path: &Path) -> io::Result<Source> {
        self.read(path, 0)
    }

    /// The files that match `pattern` in `source`, in name order; a note if there are none.
    pub(super) fn include(&mut self, source: &Source, pattern: &str, place: &Place, site: &mut Site) -> Vec<Source> {
        let path = source.path(pattern);
        let paths = match expand(&path) {
            Ok(paths) => paths,
            Err(error) => {
                site.lost(
                    place,
                    format!("include {pattern}"),
                    format!("it cannot be read here: {}", SystemError(&error)),
                );
                return Vec::new();
            }
        };
        self.read_all(&paths, source, place, site)
    }

    /// Reads these files, with a note for each that cannot be read.
    pub(super) fn read_all(
        &mut self,
        paths: &[PathBuf],
        source: &Source,
        place: &Place,
        site: &mut Site,
    ) -> Vec<Source> {
        let mut sources = Vec::new();
        for path in paths {
            match self.read(path, source.depth + 1) {
                Ok(source) => sources.push(source),
                Err(error) => {
                    let what = format!("include {}", path.display());
                    site.lost(place, what, format!("it cannot be read here: {}", SystemError(&error)));
                }
            }
        }
        sources
    }

    fn read(&mut self, path: &Path, depth: usize) -> io::Result<Source> {
        let over = |what: &str| Err(io::Error::other(what.to_owned()));
        self.files += 1;
        if depth > DEEPEST {
            return over("files include each other more than 16 deep");
        }
        if self.files > MOST_FILES {
            return over("there are more than 1000 files");
        }
        let octets = if path == Path::new("-") {
            let mut octets = Vec::new();
            io::Read::read_to_end(&mut io::stdin().lock(), &mut octets)?;
            octets
        } else {
            fs::read(path)?
        };
        self.octets += octets.len();
        if self.octets > MOST_OCTETS {
            return over("it is longer than 64 MiB");
        }
        let text = super::super::discover::decode(&octets)
            .unwrap_or_else(|| octets.iter().map(|&octet| char::from(octet)).collect());
        Ok(Source {
            name: path.display().to_string().into(),
            text: text.into(),
            folder: path.parent().unwrap_or_else(|| Path::new("")).to_owned(),
            depth,
        })
    }
}

/// The files that a path with `*` and `?` in its last part names.
fn expand(path: &Path) -> io::Result<Vec<PathBuf>> {
    let pattern = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !pattern.contains(['*', '?']) {
        return Ok(vec![path.to_owned()]);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| !name.starts_with('.') && matches(pattern, name)) {
            paths.push(folder.join(name));
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Whether a name fits a pattern with `*` and `?`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return name.is_empty() };
    let rest = &pattern[first.len_utf8()..];
    match (first, name.chars().next()) {
        ('*', _) => {
            // Runs of stars would make this exponential.
            let rest = rest.trim_start_matches('*');
            rest.is_empty() || name.char_indices().any(|(at, _)| matches(rest, &name[at..]))
        }
        ('?', Some(c)) => matches(rest, &name[c.len_utf8()..]),
        (first, Some(c)) if first == c => matches(rest, &name[c.len_utf8()..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("?-*.conf", "1-a.conf", true),
            ("**", "x", true),
            ("a", "a", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbY", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
