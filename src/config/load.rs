//! Builds a plan from a file, a text, the flags of a sidecar without a file, or a file with flags.
//!
//! Flags take precedence over the file. `--listen` replaces `server.listen`. `--aws` and `--default` set the servers of
//! the groups `aws` and `default`, in place of those in the file. The rule for `preset:aws`, or for ".", then sends to
//! that group, and is added if there is none; without a file, `--default` gets private reverse names too. `--private`
//! guards the rule for `preset:aws`, with `on_public = "refuse"` unless `--on-public` is given. `--admin` and
//! `--socket` are `http` and `socket` in [admin]; `off` means none.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    address::Endpoint,
    build,
    error::{Problem, Problems},
    file::{
        self, AdminSection, CONTROL_SOCKET, File, ForwardSection, Keyword, Loaded, Located, ServerEntry, ServerSection,
        Text, Texts, Upstream, UpstreamSection,
    },
    plan::{OnPublic, Plan},
    source::{Place, Source, SourceId},
};
use crate::files;

/// Flags and environment variables of `serve`. Each text may hold several values, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServeFlags {
    /// `--listen ADDR:PORT`
    pub listen: Vec<String>,
    /// `--aws IP,IP`
    pub aws: Vec<String>,
    /// `--default IP,IP|system`
    pub default: Vec<String>,
    /// `--private CIDR,CIDR`
    pub private: Vec<String>,
    /// `--on-public log|strip|refuse`
    pub on_public: Option<String>,
    /// `--admin ADDR:PORT|off`
    pub admin: Option<String>,
    /// `--socket PATH|off`
    pub socket: Option<String>,
}

impl Plan {
    /// Reads the file at `path` and what it includes.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        Self::load_with(path, &ServeFlags::default())
    }

    /// Reads the file at `path`, with `flags` over it.
    pub fn load_with(path: &Path, flags: &ServeFlags) -> Result<Self, Problems> {
        with_flags(file::load(path), flags)
    }

    /// Reads `text`; `name` stands in messages, and relative paths start from its directory.
    pub fn from_text(name: &str, text: &str) -> Result<Self, Problems> {
        with_flags(file::parse(name, text.into()), &ServeFlags::default())
    }

    /// The plan of a sidecar without a file.
    pub fn from_flags(flags: &ServeFlags) -> Result<Self, Problems> {
        with_flags(Loaded::default(), flags)
    }
}

/// The control socket of the daemon that uses the file at `path`; none = it is off. Other mistakes in the file are
/// ignored: the daemon itself should report them when it is asked to reload.
pub fn control_socket(path: &Path) -> io::Result<Option<PathBuf>> {
    let octets = files::read(path)?;
    let Loaded { file, sources, .. } = file::parse(&path.display().to_string(), octets);
    let Some(socket) = file.admin.as_ref().and_then(|admin| admin.value.socket.as_ref()) else {
        return Ok(Some(CONTROL_SOCKET.into()));
    };
    Ok(build::path(&sources, socket))
}

/// The address of the operators' HTTP of the daemon that uses the file at `path`; none = it is off, or the text is not
/// an address. Nothing else in the file matters.
pub fn admin_http(path: &Path) -> io::Result<Option<Endpoint>> {
    let octets = files::read(path)?;
    let Loaded { file, .. } = file::parse(&path.display().to_string(), octets);
    Ok(build::admin_http(file.admin.as_ref().and_then(|admin| admin.value.http.as_ref())))
}

fn with_flags(mut loaded: Loaded, flags: &ServeFlags) -> Result<Plan, Problems> {
    if loaded.unreadable {
        return Err(Problems::new(loaded.sources.into(), loaded.problems));
    }
    apply_flags(&mut loaded, flags);
    build::build(loaded)
}

fn apply_flags(loaded: &mut Loaded, flags: &ServeFlags) {
    let Loaded { file, sources, problems, .. } = loaded;
    // A file says itself where its reverse names go.
    let rest: &[&str] = if sources.is_empty() { &[".", "reverse:private"] } else { &["."] };
    if let Some(listen) = texts(sources, "--listen", &flags.listen) {
        let place = listen.place;
        let server = || Located::new(ServerSection::default(), place);
        file.server.get_or_insert_with(server).value.listen = Some(listen);
    }
    for (flag, value) in [("--admin", &flags.admin), ("--socket", &flags.socket)] {
        let Some(text) = switchable(sources, flag, value.as_deref()) else { continue };
        let admin = || Located::new(AdminSection::default(), text.place);
        let admin = &mut file.admin.get_or_insert_with(admin).value;
        *(if flag == "--admin" { &mut admin.http } else { &mut admin.socket }) = Some(text);
    }
    if let Some(servers) = texts(sources, "--aws", &flags.aws) {
        route_zones(file, "aws", &["preset:aws"], servers);
    }
    if let Some(servers) = texts(sources, "--default", &flags.default) {
        route_zones(file, "default", rest, servers);
    }
    let on_public = texts(sources, "--on-public", flags.on_public.as_slice());
    let private = texts(sources, "--private", &flags.private);
    let Some(place) = private.as_ref().or(on_public.as_ref()).map(|given| given.place) else { return };
    let mut guarded = false;
    let on_public = on_public.and_then(|words| {
        let word = words.value.first()?;
        let action = OnPublic::parse(word, "on_public").map_err(|problem| problems.push(problem)).ok();
        // A wrong value has already been reported.
        Some(Located::new(action.unwrap_or(OnPublic::Refuse), words.place))
    });
    for forward in file.forward.iter_mut().filter(|forward| covers(&forward.value, "aws", "preset:aws")) {
        guard(&mut forward.value, private.as_ref(), on_public.as_ref());
        guarded = true;
    }
    if !guarded {
        let problem = Problem::at(&place, "there is no rule for preset:aws to guard");
        problems.push(problem.help("give the addresses of the inbound endpoint with --aws"));
    }
}

fn guard(forward: &mut ForwardSection, private: Option<&Texts>, on_public: Option<&Located<OnPublic>>) {
    if let Some(private) = private {
        forward.private = Some(private.clone());
        let refuse = || Located::new(OnPublic::Refuse, private.place);
        forward.on_public.get_or_insert_with(refuse);
    }
    if let Some(on_public) = on_public {
        forward.on_public = Some(on_public.clone());
    }
}

/// Sends the rule for the first of `zones` to the group `name` with these servers. Adds the group, and a rule for all
/// of `zones`, if missing.
fn route_zones(file: &mut File, name: &str, zones: &[&str], servers: Texts) {
    let place = servers.place;
    let text = |value: &str| Text::new(value.to_owned(), place);
    let entries = servers.into_value().into_iter().map(ServerEntry::Text).collect();
    let entries = Some(Located::new(entries, place));
    match file.upstream.iter_mut().find(|upstream| upstream.name.value == name) {
        Some(upstream) => {
            upstream.table.servers = entries;
            upstream.table.backup = None;
        }
        None => {
            let table = UpstreamSection { servers: entries, ..UpstreamSection::default() };
            file.upstream.push(Upstream { name: text(name), table });
        }
    }
    let mut sent = false;
    for forward in file.forward.iter_mut().filter(|forward| covers(&forward.value, name, zones[0])) {
        forward.value.to = Some(text(name));
        sent = true;
    }
    if sent {
        return;
    }
    let zones = zones.iter().map(|zone| text(zone)).collect();
    let zones = Some(Located::new(zones, place));
    let rule = ForwardSection { name: Some(text(name)), zones, to: Some(text(name)), ..ForwardSection::default() };
    file.forward.push(Located::new(rule, place));
}

/// Whether a rule for all clients is called `name` or has `zone`.
fn covers(forward: &ForwardSection, name: &str, zone: &str) -> bool {
    let called = forward.name.as_ref().is_some_and(|text| text.value == name);
    let has = forward.zones.iter().flat_map(|zones| &zones.value).any(|text| text.value == zone);
    forward.clients.as_ref().is_none_or(|clients| clients.value.is_empty()) && (called || has)
}

/// The value of a flag for a key that `off` empties; none if the flag was not given.
fn switchable(sources: &mut Vec<Source>, flag: &'static str, value: Option<&str>) -> Option<Text> {
    let value = value.filter(|value| !value.is_empty())?;
    let place = Place::new(SourceId::next(sources), 0..0);
    sources.push(Source::Flag(flag));
    Some(Text::new(if value == "off" { String::new() } else { value.to_owned() }, place))
}

/// The values of a flag, as a source of its own; none if it was not given. An empty variable counts as unset.
fn texts(sources: &mut Vec<Source>, flag: &'static str, values: &[String]) -> Option<Texts> {
    if values.iter().all(String::is_empty) {
        return None;
    }
    let place = Place::new(SourceId::next(sources), 0..0);
    sources.push(Source::Flag(flag));
    let split = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    let value = split.map(|value| Text::new(value.to_owned(), place)).collect();
    Some(Texts::new(value, place))
}
