//! Results as JUnit XML, which CI servers read.

use std::fmt::{self, Write as _};

use super::Results;

/// The document: a test suite, with a test case for each expectation.
pub(super) fn document(results: &Results) -> String {
    let all = results.cases.len();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{all}\" failures=\"{failed}\">\n  \
         <testsuite name=\"tidegate\" tests=\"{all}\" failures=\"{failed}\" errors=\"0\" skipped=\"0\">\n",
        failed = results.failed,
    );
    for case in &results.cases {
        let name = format!("{} {} from {}", case.name, case.qtype, case.client);
        let (file, line) = (Escaped(&case.file), case.line);
        let name = Escaped(&name);
        write!(xml, "    <testcase classname=\"{file}\" name=\"{name}\" file=\"{file}\" line=\"{line}\"")
            .unwrap_or_default();
        if case.failures.is_empty() {
            xml += "/>\n";
            continue;
        }
        let (message, all) = (case.failures.join("; "), case.failures.join("\n"));
        let (message, all, outcome) = (Escaped(&message), Escaped(&all), Escaped(&case.outcome));
        write!(
            xml,
            ">\n      <failure message=\"{message}\">{all}\nwhat happens: {outcome}</failure>\n    </testcase>\n"
        )
        .unwrap_or_default();
    }
    xml += "  </testsuite>\n</testsuites>\n";
    xml
}

/// Text with XML's special characters escaped, and without characters that XML cannot contain.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\n' | '\t' => f.write_char(character)?,
                character if character.is_control() => f.write_char('\u{fffd}')?,
                character => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(Escaped("a<b> & \"c\"\u{1}\n").to_string(), "a&lt;b&gt; &amp; &quot;c&quot;\u{fffd}\n");
    }
}
