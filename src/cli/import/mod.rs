//! `tidegate import`: the forwarding parts of another server's configuration as a tidegate.toml.
//!
//! Policy: a setting that cannot be carried over is reported with its file and line, never dropped silently; lines
//! about the process, its log and its tuning are only counted. The result passes `tidegate check` on this machine: each
//! local zone is tried before it is written. No existing file is overwritten.

mod corefile;
mod dnsmasq;
mod kind;
mod named;
mod named_syntax;
mod site;
mod source;
mod unbound;
mod windows;
mod write;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use self::{
    kind::Kind,
    site::{Site, Tls, Weight},
    source::Files,
};
use super::output::{ERR, OUT};
use crate::{
    config::{self, Plan},
    system_error::SystemError,
};

/// What to read and where to write it.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// unbound.conf, named.conf, dnsmasq.conf, a Corefile, or what Windows printed of its zones; - is standard input
    file: PathBuf,
    /// A folder for tidegate.toml, expectations for `tidegate test`, and a hosts file where one is needed; or the
    /// configuration's own name. Without it, or with -, standard output
    #[arg(long, value_name = "DIR|FILE")]
    output: Option<PathBuf>,
    /// What FILE is, where its content does not tell
    #[arg(long, value_name = "KIND")]
    from: Option<Kind>,
}

/// Why the import failed.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error("{} cannot be read: {}", path.display(), SystemError(error))]
    Unreadable {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error(
        "{}: this looks like no configuration that can be imported: neither unbound.conf, named.conf, dnsmasq.conf, a \
         Corefile, nor what Windows printed of its zones; if it is one, say which with --from KIND",
        .0.display()
    )]
    Unknown(PathBuf),
    #[error("{}: this is a configuration of tidegate already; `tidegate check` says whether it can be used", .0.display())]
    Own(PathBuf),
    #[error("{}: there is nothing in it that could be carried over, read as {}; if it is something else, say what with --from KIND", .0.display(), .1.describe())]
    Nothing(PathBuf, Kind),
    #[error("{} exists; remove it, or say another --output", .0.display())]
    Exists(PathBuf),
    #[error("{} cannot be written: {}", path.display(), SystemError(error))]
    Unwritable {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

pub(super) fn run(options: &Options) -> i32 {
    match import(options) {
        Ok(verdict) => verdict,
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            super::UNUSABLE
        }
    }
}

fn import(options: &Options) -> Result<i32, ImportError> {
    let mut files = Files::default();
    let unreadable = |error| ImportError::Unreadable { path: options.file.clone(), error };
    let source = files.first(&options.file).map_err(unreadable)?;
    if options.from.is_none() && config::is_configuration(&source.text) {
        return Err(ImportError::Own(options.file.clone()));
    }
    let kind =
        options.from.or_else(|| Kind::of(&source.text)).ok_or_else(|| ImportError::Unknown(options.file.clone()))?;
    let mut site = Site::default();
    match kind {
        Kind::Unbound => unbound::import(&source, &mut files, &mut site),
        Kind::Named => named::import(&source, &mut files, &mut site),
        Kind::Dnsmasq => dnsmasq::import(&source, &mut files, &mut site),
        Kind::Corefile => corefile::import(&source, &mut files, &mut site),
        Kind::Windows => windows::import(&source, &mut site),
    }
    if site.forwards.is_empty() && site.locals.is_empty() && site.hosts_lines.is_empty() {
        return Err(ImportError::Nothing(options.file.clone(), kind));
    }
    write::prove_locals(&mut site);
    prove_tls(&mut site);
    let target = options.output.as_deref().filter(|output| *output != Path::new("-")).map(Target::of);
    let hosts = hosts(&mut site, &source.place(1), target.as_ref());
    site.settle();
    let from = format!("{} ({})", options.file.display(), kind.describe());
    let text = write::configuration(&site, &from, hosts.as_ref().map(|(path, _)| path.as_path()));
    match &target {
        None => write!(OUT, "{text}"),
        Some(target) => {
            let made = hosts.as_ref().and_then(|(path, text)| Some((path.clone(), text.as_ref()?.clone())));
            let config = target.configuration.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            let expectations = (target.expectations.clone(), write::expectations(&site, &config));
            let all: Vec<(PathBuf, String)> =
                [(target.configuration.clone(), text.clone()), expectations].into_iter().chain(made).collect();
            target.write(&all)?;
            all.iter().for_each(|(path, _)| writeln!(OUT, "{} written", path.display()));
        }
    }
    report(&site);
    let is_usable = prove_whole(&text, target.as_ref());
    Ok(if site.is_partial() || !is_usable { super::FAILED } else { super::OK })
}

/// Prints the notes for the person who runs the import.
fn report(site: &Site) {
    for note in &site.notes {
        let how = match note.weight {
            Weight::Lost => "not carried over",
            Weight::Differs => "differs",
        };
        let [place, what, why] = [&note.place.to_string(), &note.what, &note.why].map(|text| write::printable(text));
        writeln!(ERR, "{place}: {how}: {what}: {why}");
    }
    let count = |weight| site.notes.iter().filter(|note| note.weight == weight).count();
    let (lost, differs) = (count(Weight::Lost), count(Weight::Differs));
    let unneeded = site.unneeded;
    writeln!(
        ERR,
        "{} zones forwarded, {} answered here; {lost} things not carried over, {differs} differ; {unneeded} lines have no \
         counterpart and need none",
        site.forwards.len(),
        site.locals.len()
    );
}

/// Whether the result is a valid configuration. It is checked as it is, so that `check` finds nothing new.
fn prove_whole(text: &str, target: Option<&Target>) -> bool {
    let name = target.map_or_else(|| "tidegate.toml".to_owned(), |target| target.configuration.display().to_string());
    match Plan::from_text(&name, text) {
        Ok(_) => true,
        Err(problems) => {
            problems.lines().for_each(|line| writeln!(ERR, "{line}"));
            writeln!(ERR, "the result needs a hand before `tidegate check` takes it");
            false
        }
    }
}

/// Listeners over TLS need a certificate that can be read.
fn prove_tls(site: &mut Site) {
    if site.tls.listen.is_empty() && site.tls.https.is_empty() {
        return;
    }
    let is_readable = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| File::open(path).is_ok());
    if is_readable(&site.tls.certificate) && is_readable(&site.tls.key) {
        return;
    }
    let listen = [&site.tls.listen[..], &site.tls.https].concat().join(", ");
    if let Some(place) = site.forwards.first().map(|forward| forward.place.clone()) {
        let why = "its certificate or key cannot be read here; write [server.tls] with `certificate` and `key`";
        site.lost(&site::Place { line: 1, ..place }, format!("listening on {listen} over TLS"), why);
    }
    site.tls = Tls::default();
}

/// The hosts file: the one that is configured, or one merged from several, with its text.
fn hosts(site: &mut Site, place: &site::Place, target: Option<&Target>) -> Option<(PathBuf, Option<String>)> {
    let mut read = Vec::new();
    for path in std::mem::take(&mut site.hosts_files) {
        match fs::read_to_string(&path) {
            Ok(text) => read.push((path, text)),
            Err(error) => {
                site.lost(place, path.display().to_string(), format!("it cannot be read here: {}", SystemError(&error)))
            }
        }
    }
    let (good, bad): (Vec<_>, Vec<_>) =
        std::mem::take(&mut site.hosts_lines).into_iter().partition(|line| write::is_hosts_line(line));
    bad.into_iter().for_each(|line| site.lost(place, line, "this is not ADDRESS NAME"));
    let domain = site.hosts_domain.take().filter(|_| !read.is_empty());
    if good.is_empty() && read.len() < 2 && domain.is_none() {
        return read.pop().map(|(path, _)| (std::path::absolute(&path).unwrap_or(path), None));
    }
    let Some(target) = target else {
        let why = "records of single hosts go into a hosts file beside tidegate.toml; say --output DIR";
        if !good.is_empty() {
            site.lost(place, format!("{} hosts", good.len()), why);
        }
        if let Some(domain) = domain {
            let why = format!("{why}, where names without a dot are given the domain {domain}");
            site.lost(place, "expand-hosts", why);
        }
        return read.pop().map(|(path, _)| (std::path::absolute(&path).unwrap_or(path), None));
    };
    if let Some(domain) = domain {
        read.iter_mut().for_each(|(_, text)| *text = write::with_domain(text, &domain));
    }
    let parts = read.iter().map(|(path, text)| format!("# {}\n{}\n", path.display(), text.trim_end()));
    let text = parts.chain([good.join("\n") + "\n"]).collect::<Vec<_>>().join("\n");
    Some((std::path::absolute(&target.hosts).unwrap_or_else(|_| target.hosts.clone()), Some(text)))
}

/// The destination of the result.
struct Target {
    configuration: PathBuf,
    expectations: PathBuf,
    hosts: PathBuf,
}

impl Target {
    fn of(output: &Path) -> Self {
        let is_new_folder = output.extension().is_none() && !output.exists();
        if output.is_dir() || is_new_folder {
            return Self::of(&output.join("tidegate.toml"));
        }
        Self {
            configuration: output.to_owned(),
            expectations: output.with_extension("expectations.toml"),
            hosts: output.with_extension("hosts"),
        }
    }

    /// Writes all files, or none.
    fn write(&self, files: &[(PathBuf, String)]) -> Result<(), ImportError> {
        if let Some((taken, _)) = files.iter().find(|(path, _)| path.exists()) {
            return Err(ImportError::Exists(taken.clone()));
        }
        if let Some(folder) = self.configuration.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::create_dir_all(folder).map_err(|error| ImportError::Unwritable { path: folder.to_owned(), error })?;
        }
        for (path, text) in files {
            let written = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(|error| ImportError::Unwritable { path: path.clone(), error })?;
        }
        Ok(())
    }
}
