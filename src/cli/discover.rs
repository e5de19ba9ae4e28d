//! `tidegate discover`: from the addresses of a Route 53 Resolver endpoint to an `[upstream]` table.
//!
//! Policy: only addresses with status ATTACHED become upstreams; the others do not answer, and are named in a comment.
//! So are those beyond [`MAX_SERVERS`], which no group could hold: the first ones are kept.
//! A list that is cut, empty, or not a list of addresses is refused: half an endpoint is worse than an error. A file is
//! replaced whole by rename, and only if it is no worse than before; then the daemon on its control socket reloads.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::IpAddr,
    os::unix::fs::{MetadataExt, fchown},
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::IgnoredAny};

use super::{
    client::{self, ClientError},
    control,
    output::{ERR, OUT},
};
use crate::{
    config::{self, EditError, MAX_SERVERS, Plan},
    files,
    system_error::SystemError,
};

/// Where the addresses come from and where they go.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// What `aws route53resolver list-resolver-endpoint-ip-addresses --output json` printed; - is standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Puts the servers into this configuration file instead of printing a table
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// The name of the [upstream] table
    #[arg(long, value_name = "NAME", default_value = "vpc")]
    group: String,
}

/// The AWS command whose output is read.
const COMMAND: &str = "aws route53resolver list-resolver-endpoint-ip-addresses --resolver-endpoint-id";

/// Why no server was found, or the file was not written.
#[derive(Debug, thiserror::Error)]
enum DiscoverError {
    #[error("{} cannot be read: {}", path.display(), SystemError(error))]
    Unreadable {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("{} is neither UTF-8 nor UTF-16", .0.display())]
    NotText(PathBuf),
    #[error("nothing came in; pipe the output of `{COMMAND} ID` here")]
    Nothing,
    #[error("this is not JSON; add --output json to the aws command")]
    NotJson,
    #[error("this is not what `{COMMAND} ID` prints ({0}); run it without --query")]
    OtherShape(#[source] serde_json::Error),
    #[error("these are endpoints, not their addresses; run `{COMMAND} ID` for one of: {0}")]
    Endpoints(String),
    #[error("there is no \"IpAddresses\" in it; run `{COMMAND} ID` without --query")]
    NoAddresses,
    #[error("the list is cut; run the aws command without --max-items and --no-paginate")]
    Cut,
    #[error("\"{0}\" is not an address of a server")]
    NotAnAddress(String),
    #[error("the endpoint has no attached address; left out: {0}")]
    NoneAttached(String),
    #[error("{}: {error}", path.display())]
    Edit {
        path: PathBuf,
        #[source]
        error: EditError,
    },
    #[error("{0}")]
    Name(#[from] EditError),
    #[error("{} stays as it is: with these servers it would be wrong:\n{problems}", path.display())]
    Worse { path: PathBuf, problems: String },
    #[error("{} is written, and not in force: {why}", path.display())]
    NotReloaded { path: PathBuf, why: String },
    #[error("{} cannot be written: {}", path.display(), SystemError(error))]
    Unwritable {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

/// What the AWS CLI prints, as far as it is of use here: one of these lists.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    /// Of list-resolver-endpoint-ip-addresses.
    ip_addresses: Option<Vec<EndpointAddress>>,
    /// There is more where this is not null.
    next_token: Option<IgnoredAny>,
    /// Of list-resolver-endpoints.
    resolver_endpoints: Option<Vec<ResolverEndpoint>>,
    /// Of get-resolver-endpoint.
    resolver_endpoint: Option<ResolverEndpoint>,
}

/// An address of an endpoint; a new one is not known yet.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EndpointAddress {
    ip: Option<String>,
    ipv6: Option<String>,
    status: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ResolverEndpoint {
    id: Option<String>,
    direction: Option<String>,
}

/// An endpoint's addresses.
#[derive(Debug, PartialEq, Eq)]
struct InboundEndpoint {
    servers: Vec<IpAddr>,
    /// Attached addresses beyond [`MAX_SERVERS`].
    too_many: Vec<String>,
    /// "10.20.3.10 (CREATING)"
    left_out: Vec<String>,
}

pub(super) fn run(options: &Options) -> i32 {
    match discover(options) {
        Ok(said) => {
            write!(OUT, "{said}");
            super::OK
        }
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            super::FAILED
        }
    }
}

fn discover(options: &Options) -> Result<String, DiscoverError> {
    let endpoint = parse(&read(&options.file)?)?;
    let mut left_out = String::new();
    if !endpoint.left_out.is_empty() {
        left_out += &format!("# left out, not attached: {}\n", endpoint.left_out.join(", "));
    }
    if !endpoint.too_many.is_empty() {
        let addresses = endpoint.too_many.join(", ");
        left_out += &format!("# left out, since a group has at most {MAX_SERVERS} servers: {addresses}\n");
    }
    let Some(path) = &options.write else {
        return Ok(left_out + &config::group_table(&options.group, &endpoint.servers)?);
    };
    Ok(left_out + &write(path, &options.group, &endpoint.servers)?)
}

fn read(path: &Path) -> Result<String, DiscoverError> {
    let mut bytes = Vec::new();
    let result = match path == Path::new("-") {
        true => io::stdin().read_to_end(&mut bytes),
        false => File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    result.map_err(|error| DiscoverError::Unreadable { path: path.to_owned(), error })?;
    decode(&bytes).ok_or_else(|| DiscoverError::NotText(path.to_owned()))
}

/// Decodes text as shells save it: UTF-8, or the UTF-16 of PowerShell's `>`, each with or without a byte order mark.
/// JSON begins with ASCII, so the positions of zero octets show the encoding.
pub(super) fn decode(bytes: &[u8]) -> Option<String> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|&octets| unit(octets)).collect();
        if rest.is_empty() { String::from_utf16(&units).ok() } else { None }
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        [1..=u8::MAX, 0, ..] => utf16(bytes, u16::from_le_bytes),
        [0, 1..=u8::MAX, ..] => utf16(bytes, u16::from_be_bytes),
        _ => String::from_utf8(bytes.to_vec()).ok(),
    }
}

fn parse(text: &str) -> Result<InboundEndpoint, DiscoverError> {
    if text.trim().is_empty() {
        return Err(DiscoverError::Nothing);
    }
    // Text that begins as JSON does, such as an address, would count as JSON of another shape.
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| DiscoverError::NotJson)?;
    let printed: Printed = serde_json::from_str(text).map_err(DiscoverError::OtherShape)?;
    let single = printed.resolver_endpoint.map(|endpoint| vec![endpoint]);
    if let Some(endpoints) = printed.resolver_endpoints.or(single) {
        return Err(DiscoverError::Endpoints(inbound(&endpoints)));
    }
    let list = printed.ip_addresses.ok_or(DiscoverError::NoAddresses)?;
    if printed.next_token.is_some() {
        return Err(DiscoverError::Cut);
    }
    let mut endpoint = InboundEndpoint { servers: Vec::new(), too_many: Vec::new(), left_out: Vec::new() };
    for address in &list {
        endpoint.take(address)?;
    }
    if endpoint.servers.is_empty() {
        let left_out = if endpoint.left_out.is_empty() { "none".to_owned() } else { endpoint.left_out.join(", ") };
        return Err(DiscoverError::NoneAttached(left_out));
    }
    Ok(endpoint)
}

/// The ids of those endpoints that are inbound.
fn inbound(endpoints: &[ResolverEndpoint]) -> String {
    let is_inbound =
        |endpoint: &&ResolverEndpoint| endpoint.direction.as_ref().is_some_and(|word| word.starts_with("INBOUND"));
    let ids: Vec<&str> = endpoints.iter().filter(is_inbound).filter_map(|endpoint| word(&endpoint.id)).collect();
    if ids.is_empty() { "(none of them is inbound)".to_owned() } else { ids.join(", ") }
}

/// A value from AWS if it is a single word. Anything else is dropped, since in a comment it could end the comment.
fn word(text: &Option<String>) -> Option<&str> {
    let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    text.as_deref().filter(|text| !text.is_empty() && text.bytes().all(is_of_word))
}

impl InboundEndpoint {
    fn take(&mut self, entry: &EndpointAddress) -> Result<(), DiscoverError> {
        let status = word(&entry.status).unwrap_or("no status");
        let mut any = false;
        for text in [&entry.ip, &entry.ipv6].into_iter().flatten() {
            any = true;
            let address = text.parse().ok().filter(|&address: &IpAddr| config::is_host_address(address));
            let address = address.ok_or_else(|| DiscoverError::NotAnAddress(text.escape_debug().to_string()))?;
            if status != "ATTACHED" {
                self.left_out.push(format!("{address} ({status})"));
            } else if self.servers.contains(&address) {
                // An address that is listed twice.
            } else if self.servers.len() < MAX_SERVERS {
                self.servers.push(address);
            } else {
                self.too_many.push(address.to_string());
            }
        }
        if !any {
            self.left_out.push(format!("an address that is not known yet ({status})"));
        }
        Ok(())
    }
}

/// Puts the servers into the file and describes the result.
fn write(path: &Path, group: &str, servers: &[IpAddr]) -> Result<String, DiscoverError> {
    let unreadable = |error| DiscoverError::Unreadable { path: path.to_owned(), error };
    // Follow a symbolic link: its target is replaced, the link stays.
    let path = fs::canonicalize(path).map_err(unreadable)?;
    let before = files::read_to_string(&path).map_err(unreadable)?;
    let after = config::set_servers(&before, group, servers)
        .map_err(|error| DiscoverError::Edit { path: path.clone(), error })?;
    let names: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let names = names.join(", ");
    if before == after {
        return Ok(format!("{}: upstream \"{group}\" has {names} already\n", path.display()));
    }
    replace(&path, &after)?;
    let then = match reload(&path) {
        Ok(then) => then,
        Err(why) => return Err(DiscoverError::NotReloaded { path, why }),
    };
    Ok(format!("{}: upstream \"{group}\" has {names} now; {then}\n", path.display()))
}

/// Makes the daemon of this configuration reload, and describes the result.
fn reload(path: &Path) -> Result<String, String> {
    let socket = config::control_socket(path).ok().flatten();
    let Some(socket) = socket.filter(|socket| socket.exists()) else {
        return Ok("no daemon is running; one that does is told by `tidegate reload`".to_owned());
    };
    let (status, answer) = match client::post_over_socket(&socket, "/v1/reload", "{}") {
        Ok(answered) => answered,
        Err(error @ ClientError::NoSocket(..)) => return Ok(error.to_string()),
        Err(error) => return Err(error.to_string()),
    };
    let report = control::report(status, &answer);
    // A daemon without files runs on flags.
    if let Some(files) = report.facts.files
        && !files.iter().any(|file| Path::new(file) == path)
    {
        let reads = if files.is_empty() { "no file".to_owned() } else { files.join(", ") };
        return Err(format!("the daemon behind {} reads {reads}, not this one", socket.display()));
    }
    if status == 200 {
        return Ok("the daemon has reloaded".to_owned());
    }
    Err(report.lines.join("\n"))
}

/// Replaces the file atomically and keeps owner and mode; refuses to turn a valid configuration into an invalid one.
fn replace(path: &Path, text: &str) -> Result<(), DiscoverError> {
    let unwritable = |error| DiscoverError::Unwritable { path: path.to_owned(), error };
    let mut aside = path.as_os_str().to_owned();
    // No `include` pattern matches this suffix.
    aside.push(format!(".{}.new", std::process::id()));
    let aside = PathBuf::from(aside);
    let result = write_aside(path, &aside, text).map_err(unwritable).and_then(|()| {
        if let (Ok(_), Err(problems)) = (Plan::load(path), Plan::load(&aside)) {
            let problems = problems.lines().collect::<Vec<_>>().join("\n");
            return Err(DiscoverError::Worse { path: path.to_owned(), problems });
        }
        fs::rename(&aside, path).map_err(unwritable)
    });
    if result.is_err() {
        // Best effort: the first error is the one to report.
        drop(fs::remove_file(&aside));
    }
    result
}

fn write_aside(path: &Path, aside: &Path, text: &str) -> io::Result<()> {
    let about = fs::metadata(path)?;
    let mut file = File::options().write(true).create_new(true).open(aside)?;
    file.set_permissions(about.permissions())?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (about.uid(), about.gid()) {
        fchown(&file, Some(about.uid()), Some(about.gid()))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn only_attached_addresses_are_servers() {
        let text = r#"{ "IpAddresses": [
            { "Ip": "10.20.1.10", "Status": "ATTACHED" },
            { "Ip": "10.20.2.10", "Ipv6": "fd00::2", "Status": "ATTACHED" },
            { "Ip": "10.20.2.10", "Status": "ATTACHED" },
            { "Ip": "10.20.3.10", "Status": "REMAP_ATTACHING" },
            { "Status": "CREATING" },
            { "Ip": "10.20.4.10", "Status": "ATTACHED\n[server]" } ] }"#;
        let endpoint = parse(text).unwrap();
        assert_eq!(
            endpoint.servers,
            ["10.20.1.10", "10.20.2.10", "fd00::2"].map(|text| text.parse::<IpAddr>().unwrap())
        );
        assert_eq!(
            endpoint.left_out,
            ["10.20.3.10 (REMAP_ATTACHING)", "an address that is not known yet (CREATING)", "10.20.4.10 (no status)"]
        );
    }

    #[test]
    fn text_is_read_in_every_encoding_that_shells_save_it_in() {
        let text = "{\"Ip\": \"ü\"}";
        let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (mark, octets) in [
            (&[][..], text.as_bytes()),
            (&[0xef, 0xbb, 0xbf], text.as_bytes()),
            (&[], &le),
            (&[0xff, 0xfe], &le),
            (&[], &be),
            (&[0xfe, 0xff], &be),
        ] {
            assert_eq!(decode(&[mark, octets].concat()).as_deref(), Some(text), "{mark:x?}");
        }
        assert_eq!(decode(b""), Some(String::new()));
        assert_eq!(decode(&[b'{', 0, b'}']), None, "cut in the middle of a character");
        assert_eq!(decode(&[0xff, 0xfe, 0, 0xd8]), None, "half a character");
        assert_eq!(decode(&[b'{', 0xff]), None);
    }

    #[test]
    fn texts_that_are_no_list_of_addresses_say_why() {
        for (text, part) in [
            ("", "nothing came in"),
            ("IPADDRESSES\t10.20.1.10", "--output json"),
            ("10.20.1.10\trni-1\tATTACHED", "--output json"),
            ("[\"10.20.1.10\"]", "without --query"),
            ("{\"IpAddresses\": [], \"NextToken\": \"x\"}", "--max-items"),
            ("{\"IpAddresses\": []}", "no attached address; left out: none"),
            ("{\"IpAddresses\": [{\"Ip\": \"10.0.0.1\", \"Status\": \"DETACHING\"}]}", "10.0.0.1 (DETACHING)"),
            ("{\"IpAddresses\": [{\"Ip\": \"10.0.0\\u001b.1\", \"Status\": \"ATTACHED\"}]}", "10.0.0\\u{1b}.1"),
            ("{\"IpAddresses\": [{\"Ip\": \"0.0.0.0\", \"Status\": \"ATTACHED\"}]}", "\"0.0.0.0\" is not an address"),
            (
                "{\"ResolverEndpoints\": [{\"Id\": \"rslvr-out-1\", \"Direction\": \"OUTBOUND\"}, \
                 {\"Id\": \"rslvr-in-2\", \"Direction\": \"INBOUND\"}]}",
                "one of: rslvr-in-2",
            ),
            ("{\"ResolverEndpoint\": {\"Id\": \"rslvr-in-3\", \"Direction\": \"INBOUND\"}}", "one of: rslvr-in-3"),
            ("{\"ResolverEndpoints\": []}", "none of them is inbound"),
            ("{\"IpAddresses\": [\"10.20.1.10\"]}", "without --query"),
            ("{\"IpAddresses\": [{\"Ip\": 5, \"Status\": \"ATTACHED\"}]}", "invalid type: integer `5`"),
            ("{\"IpAddresses\": null}", "no \"IpAddresses\""),
        ] {
            assert!(said(text).contains(part), "{text}: {}", said(text));
        }
    }
}
