//! Reads local zones and the hosts file, and decides what to do about files that cannot be used.
//!
//! - At the start a zone whose file is broken, missing or unreadable is [`Content::Broken`]: its names are answered
//!   with SERVFAIL, everything else is served. A hosts file that cannot be read has no names.
//! - Later a file that cannot be used is an error, and the caller leaves everything as it is; only what was broken
//!   before may be broken again.
//! - What is wrong in the configuration itself (inline records, a zone declared twice) is always an error.
//! - A file that has not changed since is not read again.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{LocalSpec, SkippedLines, ZoneSource, error::ZoneError, hosts::Hosts, text, watch::FileWatch, zone::Zone};

/// The contents of a local zone.
#[derive(Debug)]
pub(super) enum Content {
    /// Its records.
    Zone(Zone),
    /// None: the file cannot be used.
    Broken,
}

/// A local zone and the files it was read from.
#[derive(Debug)]
pub(super) struct LoadedZone {
    pub(super) spec: LocalSpec,
    pub(super) content: Content,
    pub(super) files: FileWatch,
}

impl LoadedZone {
    /// The zone's records; none while its file is broken.
    pub(super) const fn zone(&self) -> Option<&Zone> {
        match &self.content {
            Content::Zone(zone) => Some(zone),
            Content::Broken => None,
        }
    }

    fn is_of(&self, spec: &LocalSpec) -> bool {
        self.spec.zone == spec.zone && self.spec.source == spec.source
    }
}

/// A hosts file.
#[derive(Debug, Default)]
pub(super) struct LoadedHosts {
    path: Option<PathBuf>,
    /// None while the file cannot be read.
    content: Option<Hosts>,
    pub(super) files: FileWatch,
}

impl LoadedHosts {
    /// Its names, if there is a file that can be read.
    pub(super) const fn hosts(&self) -> Option<&Hosts> {
        self.content.as_ref()
    }

    /// The path of a file that cannot be read.
    pub(super) fn unreadable(&self) -> Option<&Path> {
        self.path.as_deref().filter(|_| self.content.is_none())
    }
}

/// Errors found while reading.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Errors that refuse the whole configuration.
    pub(super) refused: Vec<ZoneError>,
    /// Errors in files whose zones stay out of service until the files are fixed.
    pub(super) broken: Vec<ZoneError>,
    /// Lines of a hosts file that were left out.
    pub(super) skipped: Option<SkippedLines>,
}

/// Reads a zone, or reuses `before` if its files have not changed. None if its errors refuse the whole configuration.
pub(super) fn zone(
    spec: &LocalSpec,
    before: Option<&Arc<LoadedZone>>,
    start: Start,
    findings: &mut Findings,
) -> Option<Arc<LoadedZone>> {
    let before = before.filter(|before| before.is_of(spec));
    if let Some(same) = before.filter(|before| before.files.is_current()) {
        return Some(Arc::clone(same));
    }
    let mut files = FileWatch::default();
    let content = match text::read(spec, &mut files) {
        Ok(zone) => Content::Zone(zone),
        Err(mut errors) => {
            let was_broken = before.is_some_and(|before| before.zone().is_none());
            let may_be_broken = matches!(spec.source, ZoneSource::File(_)) && (start == Start::First || was_broken);
            if !may_be_broken {
                findings.refused.append(&mut errors);
                return None;
            }
            findings.broken.append(&mut errors);
            Content::Broken
        }
    };
    Some(Arc::new(LoadedZone { spec: spec.clone(), content, files }))
}

/// Whether a configuration is already in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// No: serve everything that can be served.
    First,
    /// Yes: keep it rather than use broken files.
    Later,
}

/// Reads a hosts file, or reuses `before` if it has not changed. None if its errors refuse the whole configuration.
pub(super) fn hosts(
    path: Option<&Path>,
    before: Option<&Arc<LoadedHosts>>,
    start: Start,
    findings: &mut Findings,
) -> Option<Arc<LoadedHosts>> {
    let Some(path) = path else { return Some(Arc::default()) };
    let before = before.filter(|before| before.path.as_deref() == Some(path));
    if let Some(same) = before.filter(|before| before.files.is_current()) {
        return Some(Arc::clone(same));
    }
    let mut files = FileWatch::default();
    let content = match Hosts::read(path, &mut files) {
        Ok((hosts, skipped)) => {
            findings.skipped = skipped;
            Some(hosts)
        }
        Err(error) if start == Start::First || before.is_some_and(|before| before.content.is_none()) => {
            findings.broken.push(error);
            None
        }
        Err(error) => {
            findings.refused.push(error);
            return None;
        }
    };
    Some(Arc::new(LoadedHosts { path: Some(path.to_owned()), content, files }))
}
