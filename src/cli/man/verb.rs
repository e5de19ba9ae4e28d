//! `tidegate-VERB(1)`: the help of a verb.

use clap::{Arg, Command};

use super::roff::Page;

/// The page of a verb.
pub(super) fn page(verb: &Command, date: &str) -> String {
    let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = Page::new(&format!("tidegate-{}", verb.get_name()), 1, date, &about);
    page.section("SYNOPSIS");
    let usage = verb.clone().render_usage().to_string();
    page.text(&format!("`{}`", usage.trim_start_matches("Usage: ").replace('\n', " ")));
    page.section("DESCRIPTION");
    page.text(&sentence(&verb.get_long_about().map_or(about, ToString::to_string)));
    section(&mut page, "ARGUMENTS", verb.get_positionals());
    section(
        &mut page,
        "OPTIONS",
        verb.get_arguments().filter(|argument| !argument.is_positional() && !argument.is_hide_set()),
    );
    let notes = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
    for (title, head) in [("EXIT STATUS", super::super::EXIT), ("EXAMPLES", super::super::EXAMPLE)] {
        let mut lines = notes.lines().filter_map(|line| line.strip_prefix(head)).peekable();
        if lines.peek().is_some() {
            page.section(title);
        }
        for line in lines {
            match head {
                super::super::EXAMPLE => page.literal([line]),
                _ => page.text(&sentence(line)),
            }
        }
    }
    page.references(&[("tidegate".to_owned(), 1), ("tidegate.toml".to_owned(), 5)]);
    page.finish()
}

fn section<'a>(page: &mut Page, title: &str, arguments: impl Iterator<Item = &'a Arg>) {
    let mut arguments = arguments.peekable();
    if arguments.peek().is_some() {
        page.section(title);
    }
    for argument in arguments {
        page.item(&head(argument), &body(argument));
    }
}

/// "`-j`, `--json`", "`--config` FILE", "FILE".
fn head(argument: &Arg) -> String {
    let short = argument.get_short().map(|short| format!("`-{short}`"));
    let long = argument.get_long().map(|long| format!("`--{long}`"));
    let flags: Vec<String> = short.into_iter().chain(long).collect();
    let takes_value = argument.get_action().takes_values();
    let values: Vec<String> = match argument.get_value_names().filter(|_| takes_value) {
        Some(names) => names.iter().map(ToString::to_string).collect(),
        None => Vec::new(),
    };
    [flags.join(", "), values.join(" ")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn body(argument: &Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut body = sentence(&help);
    let values: Vec<String> =
        argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if argument.get_action().takes_values() && !values.is_empty() {
        body += &format!(" One of {}.", values.join(", "));
    }
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|value| format!("`{}`", value.display())).collect();
    if argument.get_action().takes_values() && !defaults.is_empty() {
        body += &format!(" By default {}.", defaults.join(", "));
    }
    if let Some(variable) = argument.get_env() {
        body += &format!(" Also from the environment variable `{}`.", variable.display());
    }
    body
}

/// Help texts have no full stop at the end.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with(['.', ']', ':']) { text.to_owned() } else { format!("{text}.") }
}
