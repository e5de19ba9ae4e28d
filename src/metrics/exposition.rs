//! Writes metrics as Prometheus text 0.0.4, or as OpenMetrics 1.0 if the scraper asks for it.
//!
//! This is our own writer. `prometheus-client` (0.26) writes both formats too, but from a registry that owns the
//! metrics; ours live where they are counted (workers, servers, cache) and are summed at each scrape. The formats
//! differ little: OpenMetrics names a counter's family without `_total` and an info's without `_info`, writes whole
//! `le` bounds as `1.0`, and ends in `# EOF`.
//!
//! Names are given as samples have them (`tidegate_queries_total`, `tidegate_build_info`). A family's samples directly
//! follow its head, as both formats demand. Callers must not write a family twice.

use std::{
    fmt::{self, Display, Write as _},
    time::Duration,
};

/// How the numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text exposition format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A sample's labels with their values.
pub type MetricLabels<'a> = &'a [(&'a str, &'a str)];

/// Metrics text that is being written.
#[derive(Debug)]
pub struct Exposition {
    format: Format,
    text: String,
}

/// A family whose samples are being written.
#[derive(Debug)]
pub struct MetricFamily<'a> {
    exposition: &'a mut Exposition,
    name: &'static str,
}

impl Exposition {
    /// Empty text.
    pub fn new(format: Format) -> Self {
        Self { format, text: String::with_capacity(16 * 1024) }
    }

    /// Starts a counter. `name` ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str) -> MetricFamily<'_> {
        self.family(name, "_total", "counter", help)
    }

    /// Starts a gauge.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> MetricFamily<'_> {
        self.family(name, "", "gauge", help)
    }

    /// Starts an info metric: facts in labels, with the value 1. `name` ends in `_info`. Prometheus text has no such
    /// type and gets a gauge.
    pub fn info(&mut self, name: &'static str, help: &str) -> MetricFamily<'_> {
        match self.format {
            Format::Text => self.gauge(name, help),
            Format::OpenMetrics => self.family(name, "_info", "info", help),
        }
    }

    /// Starts a histogram of durations. `name` ends in `_seconds`.
    pub fn histogram(&mut self, name: &'static str, help: &str) -> MetricFamily<'_> {
        self.family(name, "", "histogram", help)
    }

    /// Finishes the text and returns it.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn family(&mut self, name: &'static str, suffix: &str, kind: &str, help: &str) -> MetricFamily<'_> {
        let of_family = match self.format {
            Format::Text => name,
            Format::OpenMetrics => name.strip_suffix(suffix).unwrap_or(name),
        };
        let help = Escaped { text: help, quotes: self.format == Format::OpenMetrics };
        self.line(format_args!("# HELP {of_family} {help}"));
        self.line(format_args!("# TYPE {of_family} {kind}"));
        MetricFamily { exposition: self, name }
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        writeln!(self.text, "{line}").ok();
    }
}

impl MetricFamily<'_> {
    /// Writes one sample.
    pub fn sample(&mut self, labels: MetricLabels<'_>, value: impl Display) -> &mut Self {
        self.write("", labels, None, value);
        self
    }

    /// Writes the samples of one histogram. `buckets` are not cumulative: one for each of `bounds`, one for longer
    /// durations.
    pub fn observations(
        &mut self,
        labels: MetricLabels<'_>,
        bounds: impl Iterator<Item = Duration>,
        buckets: &[u64],
        sum: Duration,
    ) -> &mut Self {
        let mut count = 0;
        let mut rest = buckets.iter();
        for (bound, bucket) in bounds.zip(rest.by_ref()) {
            count += bucket;
            let mut le = Seconds(bound).to_string();
            if self.exposition.format == Format::OpenMetrics && !le.contains('.') {
                le.push_str(".0");
            }
            self.write("_bucket", labels, Some(&le), count);
        }
        count += rest.sum::<u64>();
        self.write("_bucket", labels, Some("+Inf"), count);
        self.write("_sum", labels, None, Seconds(sum));
        self.write("_count", labels, None, count);
        self
    }

    fn write(&mut self, suffix: &str, labels: MetricLabels<'_>, le: Option<&str>, value: impl Display) {
        let name = self.name;
        let all = labels.iter().copied().chain(le.map(|le| ("le", le)));
        let labels = Braces(all);
        self.exposition.line(format_args!("{name}{suffix}{labels} {value}"));
    }
}

/// A duration in seconds, exact and without an exponent.
#[derive(Debug, Clone, Copy)]
pub struct Seconds(pub Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanoseconds) = (self.0.as_secs(), self.0.subsec_nanos());
        if nanoseconds == 0 {
            return write!(f, "{seconds}");
        }
        let fraction = format!("{nanoseconds:09}");
        write!(f, "{seconds}.{}", fraction.trim_end_matches('0'))
    }
}

struct Braces<I>(I);

impl<'a, I: Iterator<Item = (&'a str, &'a str)> + Clone> Display for Braces<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = '{';
        for (label, text) in self.0.clone() {
            write!(f, "{before}{label}=\"{}\"", Escaped { text, quotes: true })?;
            before = ',';
        }
        if before == ',' { f.write_char('}') } else { Ok(()) }
    }
}

/// A label value or help text, escaped.
struct Escaped<'a> {
    text: &'a str,
    quotes: bool,
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.text.chars() {
            match letter {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '"' if self.quotes => f.write_str("\\\"")?,
                letter => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample_of_each(format: Format) -> String {
        let mut exposition = Exposition::new(format);
        exposition.counter("a_total", "One \"a\".").sample(&[], 1).sample(&[("b", "c\\d\n\"e\"")], 2);
        exposition.gauge("b", "Two\nlines.").sample(&[("x", "y"), ("z", "")], 0.5);
        exposition.info("c_info", "Three.").sample(&[("version", "1")], 1);
        let bounds = [Duration::from_micros(10), Duration::from_secs(1)].into_iter();
        let sum = Duration::from_nanos(2_500_000_001);
        exposition.histogram("d_seconds", "Four.").observations(&[("s", "t")], bounds, &[1, 2, 4], sum);
        exposition.finish()
    }

    #[test]
    fn the_older_text_is_as_prometheus_reads_it() {
        let expected = r#"# HELP a_total One "a".
# TYPE a_total counter
a_total 1
a_total{b="c\\d\n\"e\""} 2
# HELP b Two\nlines.
# TYPE b gauge
b{x="y",z=""} 0.5
# HELP c_info Three.
# TYPE c_info gauge
c_info{version="1"} 1
# HELP d_seconds Four.
# TYPE d_seconds histogram
d_seconds_bucket{s="t",le="0.00001"} 1
d_seconds_bucket{s="t",le="1"} 3
d_seconds_bucket{s="t",le="+Inf"} 7
d_seconds_sum{s="t"} 2.500000001
d_seconds_count{s="t"} 7
"#;
        assert_eq!(sample_of_each(Format::Text), expected);
    }

    #[test]
    fn openmetrics_names_families_without_their_suffix_and_ends_in_eof() {
        let text = sample_of_each(Format::OpenMetrics);
        let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        assert_eq!(heads, ["# TYPE a counter", "# TYPE b gauge", "# TYPE c info", "# TYPE d_seconds histogram"]);
        assert!(text.contains("\na_total 1\n") && text.contains("\nc_info{version=\"1\"} 1\n"));
        assert!(text.contains("# HELP a One \\\"a\\\".\n"));
        assert!(text.contains("le=\"1.0\"} 3\n") && text.contains("le=\"0.00001\"} 1\n"));
        assert!(text.ends_with("\n# EOF\n"));
    }
}
