//! The exporter of a build without the feature `otlp`: there is none, and the configuration refuses `log.otlp`.

use std::io;

use super::{OtlpTarget, Tracer};

/// Never there.
#[derive(Debug)]
pub enum NoExporter {}

impl NoExporter {
    /// Fails.
    pub fn start(_: OtlpTarget, _: &str) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this build has no OTLP"))
    }

    /// See the exporter proper.
    pub fn tracer(&self) -> Tracer {
        match *self {}
    }

    /// See the exporter proper.
    pub fn stop(self) {
        match self {}
    }
}
