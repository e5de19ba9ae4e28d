//! Replaces the servers of a group in a configuration file, and leaves every other octet of it unchanged.
//!
//! Policy: servers that stay are not touched. A new server takes the place of one that goes, with its scheme, port and
//! everything around its address. Surplus old ones are removed with the rest of their line; surplus new ones are added
//! after the last in the same style. Words such as `system` stay. `backup` is ignored.

use std::{fmt::Write as _, net::IpAddr, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Why a file cannot be edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is not TOML.
    #[error("it is not valid TOML: {0}")]
    Syntax(String),
    /// The group is not a table with a list of servers.
    #[error("upstream \"{0}\" has no list `servers` that could be updated")]
    NoServers(String),
    /// The name cannot be that of a table.
    #[error("\"{0}\" cannot be the name of an upstream")]
    Name(String),
}

/// An element of `servers`.
struct Element {
    /// The whole element.
    span: Range<usize>,
    /// Its address as a TOML string, including quotes.
    text_span: Range<usize>,
    text: String,
}

/// A replacement of a part of the file.
struct Edit {
    span: Range<usize>,
    text: String,
}

/// A table for a new group.
pub fn group_table(group: &str, servers: &[IpAddr]) -> Result<String, EditError> {
    let is_bare = !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if !is_bare {
        return Err(EditError::Name(group.to_owned()));
    }
    let servers: Vec<String> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    Ok(format!("[upstream.{group}]\nservers = [{}]\n", servers.join(", ")))
}

/// Returns `text` with these servers as the only fixed addresses in the first tier of `group`.
pub fn set_servers(text: &str, group: &str, servers: &[IpAddr]) -> Result<String, EditError> {
    let table = DeTable::parse(text).map_err(|error| EditError::Syntax(error.message().to_owned()))?;
    let found = table.get_ref().get("upstream").and_then(|upstream| upstream.get_ref().get(group));
    let Some(found) = found else { return append(text, &group_table(group, servers)?) };
    let list = found.get_ref().get("servers").and_then(|list| Some((list.span(), list.get_ref().as_array()?)));
    let Some((span, list)) = list else { return Err(EditError::NoServers(group.to_owned())) };
    let elements: Vec<Element> = list.iter().filter_map(Element::read).collect();
    if elements.len() != list.len() {
        return Err(EditError::NoServers(group.to_owned()));
    }
    Ok(apply(text, edits(text, &span, &elements, servers)))
}

fn append(text: &str, table: &str) -> Result<String, EditError> {
    let mut text = text.to_owned();
    if !text.is_empty() {
        text.push_str(if text.ends_with('\n') { "\n" } else { "\n\n" });
    }
    text.push_str(table);
    match DeTable::parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(EditError::Syntax(error.message().to_owned())),
    }
}

impl Element {
    fn read(value: &Spanned<DeValue<'_>>) -> Option<Self> {
        let address = match value.get_ref() {
            DeValue::String(_) => value,
            DeValue::Table(table) => table.get("server")?,
            _ => return None,
        };
        let text = address.get_ref().as_str()?.to_owned();
        Some(Self { span: value.span(), text_span: address.span(), text })
    }

    /// The address in its text, if it has one.
    fn address(&self) -> Option<IpAddr> {
        host(&self.text).and_then(|host| self.text[host].parse().ok())
    }

    /// Its text with another address.
    fn with(&self, address: IpAddr) -> Option<String> {
        let host = host(&self.text)?;
        let (before, after) = (&self.text[..host.start], &self.text[host.end..]);
        let was_bracketed = before.ends_with('[') && after.starts_with(']');
        Some(match (was_bracketed, address) {
            (true, IpAddr::V4(_)) => format!("{}{address}{}", &before[..before.len() - 1], &after[1..]),
            (false, IpAddr::V6(_)) if after.starts_with(':') || !before.is_empty() => {
                format!("{before}[{address}]{after}")
            }
            _ => format!("{before}{address}{after}"),
        })
    }
}

/// The position of the address in "[scheme://]address[:port][/path][#tls-name]".
fn host(text: &str) -> Option<Range<usize>> {
    let start = text.find("://").map_or(0, |at| at + 3);
    let end = text[start..].find(['/', '#']).map_or(text.len(), |at| start + at);
    let authority = &text[start..end];
    if authority.starts_with('[') {
        return authority.find(']').map(|close| start + 1..start + close);
    }
    let port = authority.find(':').filter(|&at| authority.rfind(':') == Some(at));
    Some(start..port.map_or(end, |at| start + at))
}

/// The edits that make `servers` the addresses of `elements`, in the order of the text.
fn edits(text: &str, list: &Range<usize>, elements: &[Element], servers: &[IpAddr]) -> Vec<Edit> {
    let fixed: Vec<(usize, IpAddr)> =
        elements.iter().enumerate().filter_map(|(at, element)| Some((at, element.address()?))).collect();
    let mut coming = servers.iter().filter(|server| fixed.iter().all(|(_, address)| address != *server));
    let mut edits = Vec::new();
    let mut gone = Vec::new();
    let mut last = None;
    for (at, element) in elements.iter().enumerate() {
        let goes = fixed.iter().any(|(fixed, address)| *fixed == at && !servers.contains(address));
        if !goes {
            last = Some(at);
            continue;
        }
        match coming.next().and_then(|server| element.with(*server)) {
            Some(new) => {
                edits.push(Edit { span: element.text_span.clone(), text: format!("\"{new}\"") });
                last = Some(at);
            }
            None => gone.push(at),
        }
    }
    let model = fixed.first().map(|(at, _)| &elements[*at]);
    let new: Vec<String> = coming
        .map(|server| match model {
            Some(model) => {
                let address = model.with(*server).unwrap_or_else(|| server.to_string());
                text[model.span.clone()].replace(&text[model.text_span.clone()], &format!("\"{address}\""))
            }
            None => format!("\"{server}\""),
        })
        .collect();
    edits.extend(gone.iter().map(|&at| removal(text, list, elements, at, last)));
    if !new.is_empty() {
        edits.push(addition(text, list, elements, last, &new));
    }
    edits.sort_by_key(|edit| edit.span.start);
    edits
}

/// Removes the element at `at` with its comma and the rest of its line.
fn removal(text: &str, list: &Range<usize>, elements: &[Element], at: usize, last: Option<usize>) -> Edit {
    let own = &elements[at].span;
    let next = elements.get(at + 1).map(|element| element.span.start);
    let behind = next.unwrap_or(list.end - 1);
    let is_first_of_line = text[..own.start]
        .rfind(['\n', '['])
        .is_some_and(|start| text.as_bytes()[start] == b'\n' && text[start + 1..own.start].trim().is_empty());
    let line_end = text[own.end..behind].find('\n').map(|end| own.end + end + 1);
    let comma = comma(text, own.end..behind);
    // A comma on a later line would be left over.
    let has_its_comma = |end: usize| comma.map_or_else(|| next.is_none(), |at| at < end);
    let span = match line_end {
        Some(end) if is_first_of_line && has_its_comma(end) => {
            text[..own.start].rfind('\n').map_or(own.start, |start| start + 1)..end
        }
        _ if next.is_some() => own.start..behind,
        _ if let Some(comma) = comma => own.start..comma + 1,
        // The comma before it is removed too, unless the element before already is.
        _ if at > 0 && last == Some(at - 1) => elements[at - 1].span.end..own.end,
        _ => own.clone(),
    };
    Edit { span, text: String::new() }
}

/// The first comma in a gap between elements, ignoring comments.
fn comma(text: &str, gap: Range<usize>) -> Option<usize> {
    let mut at = gap.start;
    for line in text[gap].split_inclusive('\n') {
        let code = line.find('#').unwrap_or(line.len());
        if let Some(comma) = line[..code].find(',') {
            return Some(at + comma);
        }
        at += line.len();
    }
    None
}

/// Adds elements after the last one that stays.
fn addition(text: &str, list: &Range<usize>, elements: &[Element], last: Option<usize>, new: &[String]) -> Edit {
    let Some(last) = last else {
        return Edit { span: list.start + 1..list.start + 1, text: new.join(", ") };
    };
    let own = &elements[last].span;
    let start = text[..own.start].rfind('\n').map_or(0, |start| start + 1);
    let indent = &text[start..own.start];
    let is_on_its_own_line = start > list.start && indent.trim().is_empty();
    let mut added = String::new();
    for element in new {
        match is_on_its_own_line {
            true => write!(added, ",\n{indent}{element}"),
            false => write!(added, ", {element}"),
        }
        .unwrap_or_default();
    }
    Edit { span: own.end..own.end, text: added }
}

fn apply(text: &str, edits: Vec<Edit>) -> String {
    let mut edited = String::with_capacity(text.len());
    let mut at = 0;
    for edit in edits {
        edited.push_str(&text[at..edit.span.start.max(at)]);
        edited.push_str(&edit.text);
        at = edit.span.end.max(at);
    }
    edited.push_str(&text[at..]);
    edited
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edit(text: &str, servers: &[&str]) -> String {
        let servers: Vec<IpAddr> = servers.iter().map(|server| server.parse().unwrap()).collect();
        set_servers(text, "vpc", &servers).unwrap()
    }

    #[test]
    fn servers_that_stay_are_not_touched_and_others_change_in_place() {
        for (before, servers, after) in [
            ("[\"10.0.0.1\", \"10.0.0.2\"]", &["10.0.0.2", "10.0.0.1"][..], "[\"10.0.0.1\", \"10.0.0.2\"]"),
            ("[\"10.0.0.1\", \"10.0.0.2\"]", &["10.0.0.2", "10.0.0.3"], "[\"10.0.0.3\", \"10.0.0.2\"]"),
            ("[\"10.0.0.1\"]", &["10.0.0.1", "fd00::1"], "[\"10.0.0.1\", \"fd00::1\"]"),
            ("[\"10.0.0.1\", \"10.0.0.2\"]", &["10.0.0.1"], "[\"10.0.0.1\"]"),
            ("[\"10.0.0.1\", \"10.0.0.2\"]", &["10.0.0.2"], "[\"10.0.0.2\"]"),
            ("[ 'tcp://10.0.0.1:5353' ]", &["10.0.0.2"], "[ \"tcp://10.0.0.2:5353\" ]"),
            ("[\"https://10.0.0.1/q#n\"]", &["fd00::1"], "[\"https://[fd00::1]/q#n\"]"),
            ("[\"https://[fd00::1]/q#n\"]", &["10.0.0.1"], "[\"https://10.0.0.1/q#n\"]"),
            ("[\"system\", \"10.0.0.1\"]", &["10.0.0.2"], "[\"system\", \"10.0.0.2\"]"),
            ("[\"system\"]", &["10.0.0.2"], "[\"system\", \"10.0.0.2\"]"),
            ("[]", &["10.0.0.2", "10.0.0.3"], "[\"10.0.0.2\", \"10.0.0.3\"]"),
            (
                "[\n  \"10.0.0.1\", # a\n  # b is slow\n  \"10.0.0.2\", # b\n]",
                &["10.0.0.1"],
                "[\n  \"10.0.0.1\", # a\n  # b is slow\n]",
            ),
            (
                "[\n  \"10.0.0.1\", # a\n  \"10.0.0.2\" # b\n]",
                &["10.0.0.1", "10.0.0.2", "10.0.0.3"],
                "[\n  \"10.0.0.1\", # a\n  \"10.0.0.2\",\n  \"10.0.0.3\" # b\n]",
            ),
            (
                "[{ server = \"10.0.0.1\", mark = 7 }]",
                &["10.0.0.1", "10.0.0.2"],
                "[{ server = \"10.0.0.1\", mark = 7 }, { server = \"10.0.0.2\", mark = 7 }]",
            ),
        ] {
            let file = |servers: &str| {
                format!(
                    "# top\r\n[server]\r\n\n[upstream.vpc] # x\nservers   = {servers}\nbackup=[[\"10.0.0.1\"]]\n# end"
                )
            };
            assert_eq!(edit(&file(before), servers), file(after));
        }
    }

    #[test]
    fn a_group_that_is_not_there_is_added_at_the_end() {
        let table = "[upstream.vpc]\nservers = [\"10.0.0.1\"]\n";
        for (before, gap) in [("", ""), ("[server]\n", "\n"), ("[server]", "\n\n")] {
            assert_eq!(edit(before, &["10.0.0.1"]), format!("{before}{gap}{table}"));
        }
    }

    #[test]
    fn files_that_cannot_be_edited_say_why() {
        let servers: [IpAddr; 1] = ["10.0.0.1".parse().unwrap()];
        for text in ["[upstream.vpc]\npolicy = \"ordered\"", "[upstream.vpc]\nservers = [1]", "[upstream]\nvpc = 1"] {
            assert_eq!(set_servers(text, "vpc", &servers), Err(EditError::NoServers("vpc".to_owned())), "{text}");
        }
        for text in ["[upstream", "upstream = 1"] {
            assert!(matches!(set_servers(text, "vpc", &servers), Err(EditError::Syntax(_))), "{text}");
        }
        assert_eq!(set_servers("", "a.b", &servers), Err(EditError::Name("a.b".to_owned())));
    }

    fn layout() -> impl Strategy<Value = (Vec<(u8, usize)>, Vec<u8>)> {
        let elements = proptest::collection::vec((0..8u8, 0..4usize), 0..6);
        (elements, proptest::collection::btree_set(0..8u8, 1..6).prop_map(|set| set.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn every_layout_gets_exactly_the_given_addresses((elements, servers) in layout()) {
            let gaps = [", ", ",\n    ", ", # one, two]\n  ", " ,"];
            let list: String =
                elements.iter().map(|(number, gap)| format!("\"tcp://10.0.0.{number}\"{}", gaps[*gap])).collect();
            let file = |list: &str| format!("[upstream.vpc]\nservers = [{list}]\npolicy = \"ordered\"\n");
            let wanted: Vec<IpAddr> = servers.iter().map(|number| IpAddr::from([10, 0, 0, *number])).collect();
            let edited = set_servers(&file(&list), "vpc", &wanted).unwrap();
            let table = DeTable::parse(&edited).expect("the edited file is TOML");
            let list = table.get_ref().get("upstream").unwrap().get_ref().get("vpc").unwrap().get_ref();
            let list = list.get("servers").unwrap().get_ref().as_array().unwrap();
            let mut found: Vec<IpAddr> =
                list.iter().map(|value| Element::read(value).unwrap().address().unwrap()).collect();
            found.sort();
            found.dedup();
            prop_assert_eq!(found, wanted);
            prop_assert!(edited.starts_with("[upstream.vpc]\nservers = ["));
            prop_assert!(edited.ends_with("]\npolicy = \"ordered\"\n"));
        }
    }
}
