//! `tidegate doctor`: looks at a site from the inside and says what is wrong, what it means and what to do.
//!
//! Every server is asked as the daemon would ask it, over each transport it needs. Then its answers are checked, and
//! the AWS names that rules want private. Files of this host and the running daemon, if there is one, complete the
//! picture. All servers are asked at once, and every query has a time-out, so that the whole takes about ten seconds at
//! the most. Nothing is changed anywhere.

mod answers;
mod document;
mod exchange;
mod host;
mod kind;
mod lookups;
mod loops;
mod names;
mod running;
mod server;
mod site;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

pub use self::{
    document::{Diagnosis, DoctorFinding, Urgency},
    host::HostFiles,
    kind::Kind,
};
use self::{names::Breadth, site::Site};
use super::{
    client, control,
    output::{ERR, OUT, print_json},
};
use crate::{
    admin::status::Status,
    config::{Color, Plan, is_aws_name},
    net::mmsg::clock_is_synchronized,
    perimeter::{NameVerdict, document::PerimeterDocument},
    plural::Plural,
    system_error::SystemError,
    upstream::OwnAddresses,
    wire::{Name, name::NameError},
};

/// The most names asked for because the daemon has seen them public: all queries go out at once.
const MAX_PUBLIC_NAMES: usize = 50;
/// The most names that the daemon has seen private, by which other name servers are compared with it.
const MAX_PRIVATE_NAMES: usize = 5;

/// Names times servers up to which every server is asked for every name: all queries go out at once, each on a socket.
const MAX_COMPARED: usize = 256;

/// What to look at.
#[derive(Debug, clap::Args)]
#[group(id = "doctor")]
pub(super) struct Options {
    /// AWS names that must be private, besides those of probes and those that the running daemon has seen public
    #[arg(value_name = "NAME", value_parser = name)]
    names: Vec<Name>,
    /// Where the daemon's `admin.http` is, to ask there and not over the control socket
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    #[command(flatten)]
    daemon: control::Options,
}

fn name(text: &str) -> Result<Name, String> {
    match text.parse::<IpAddr>() {
        Ok(_) => Err("this is an address; write the name of a service, such as sts.eu-west-1.amazonaws.com".to_owned()),
        Err(_) => text.parse().map_err(|error: NameError| error.to_string()),
    }
}

impl Options {
    /// AWS names that the running daemon has seen public and private, at most [`MAX_PUBLIC_NAMES`] and
    /// [`MAX_PRIVATE_NAMES`].
    fn seen(&self) -> (Vec<Name>, Vec<Name>) {
        let admin = client::admin(self.admin.as_deref(), self.daemon.config.as_deref());
        let page = admin.and_then(|admin| client::fetch(&admin, "/api/v1/perimeter"));
        let names =
            page.ok().and_then(|body| serde_json::from_str(&body).ok()).map(|page: PerimeterDocument| page.names);
        let names = names.unwrap_or_default();
        let seen = |verdict, most| {
            let names = names.iter().filter(move |seen| seen.verdict == verdict && !seen.excepted);
            names.filter_map(|seen| seen.name.parse().ok()).take(most).collect()
        };
        (seen(NameVerdict::Public, MAX_PUBLIC_NAMES), seen(NameVerdict::Private, MAX_PRIVATE_NAMES))
    }
}

/// What is checked besides servers.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// AWS names that must be private.
    pub names: Vec<Name>,
    /// AWS names that the running daemon has seen private, by which other name servers of this host are compared with it.
    pub private: Vec<Name>,
    /// The status of the running daemon; none = no daemon runs.
    pub status: Option<Status>,
    /// Where the files of this host are.
    pub host: HostFiles,
    /// Whether something keeps this host's clock in step with others; none = not known.
    pub synchronized: Option<bool>,
}

/// Exit code 0 = nothing has to be done, 1 = something has, 2 = there is no usable configuration.
pub(super) fn run(options: &Options) -> i32 {
    let file = options.daemon.config.clone().unwrap_or_else(|| PathBuf::from(super::serve::DEFAULT_FILE));
    let color = if ERR.has_colour() { Color::Always } else { Color::Never };
    let plan = match Plan::load(&file) {
        Ok(plan) => plan,
        Err(problems) => {
            write!(ERR, "{}", problems.render(color));
            return super::UNUSABLE;
        }
    };
    let page = options.daemon.get(options.admin.as_deref(), "/v1/status").ok();
    let status = page.filter(|(code, _)| *code == 200).and_then(|(_, body)| serde_json::from_str(&body).ok());
    let mut names = options.names.clone();
    let (public, private) = if status.is_some() { options.seen() } else { Default::default() };
    names.extend(public);
    let synchronized = clock_is_synchronized().ok();
    let evidence = Evidence { names, private, status, host: HostFiles::default(), synchronized };
    let diagnosis = match diagnose(&plan, &evidence) {
        Ok(diagnosis) => diagnosis,
        Err(error) => {
            writeln!(ERR, "tidegate: no server can be asked: {}", SystemError(&error));
            return super::FAILED;
        }
    };
    if options.daemon.json {
        print_json(&diagnosis);
    } else {
        write!(OUT, "{}", text(&diagnosis));
    }
    if diagnosis.healthy { super::OK } else { super::FAILED }
}

/// Looks at a site.
///
/// # Errors
/// This host could not start to ask.
pub fn diagnose(plan: &Plan, evidence: &Evidence) -> io::Result<Diagnosis> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default())?;
    Ok(runtime.block_on(ask_everybody(plan, evidence)))
}

async fn ask_everybody(plan: &Plan, evidence: &Evidence) -> Diagnosis {
    let listen = listeners(plan, evidence.status.as_ref());
    let (mut findings, name_servers) = lookups::check(plan, &evidence.host, &listen);
    findings.extend(host::check(plan, &evidence.host));
    let workers = evidence.status.as_ref().map(|status| status.workers);
    if evidence.synchronized == Some(false) {
        let what = "the kernel says that nothing synchronizes its clock";
        findings.push(DoctorFinding::new(Kind::ClockUnsynchronized, what));
    }
    findings.extend(host::open_files(plan, &evidence.host.proc, workers));
    match &evidence.status {
        Some(status) => findings.extend(running::check(status)),
        None => findings.extend(host::ports(&plan.boot)),
    }
    let (site, mut of_servers) = Site::examine(plan, &OwnAddresses::new(listen.iter().copied())).await;
    if evidence.status.is_none() {
        let looping = loops::find(&listen, site.candidates().collect()).await;
        // Whatever else such a server answers, the loop is the cause.
        let loops = |finding: &DoctorFinding| looping.iter().any(|other| other.server == finding.server);
        of_servers.retain(|finding| finding.server.is_none() || !loops(finding));
        findings.extend(looping);
    }
    findings.extend(of_servers);
    // A probe may ask for a public name where the rule has no guard.
    let is_guarded = |name: &Name| site.rule_for(name).is_some_and(|rule| rule.guard.is_some());
    let probes = site.probe_names().filter(|name| is_aws_name(name) && is_guarded(name));
    let mut asked: Vec<&Name> = probes.chain(&evidence.names).collect();
    asked.sort_unstable();
    asked.dedup();
    let guarded: Vec<&Name> = asked.iter().copied().chain(&evidence.private).filter(|name| is_guarded(name)).collect();
    let compared = async {
        match &name_servers {
            Some(name_servers) => name_servers.compare(&site, &guarded).await,
            None => Vec::new(),
        }
    };
    let breadth = if asked.len() * site.servers() <= MAX_COMPARED { Breadth::EveryServer } else { Breadth::OneServer };
    let checked = all(asked.iter().map(|name| names::check(&site, name, breadth)));
    let (closer, names, compared) = tokio::join!(site.look_closer(), checked, compared);
    findings.extend(closer);
    // One name is enough to show that a server differs from the others of its tier.
    for finding in names.into_iter().flatten() {
        let is_told = |told: &DoctorFinding| told.kind == Kind::ServersDiffer && told.server == finding.server;
        if finding.kind != Kind::ServersDiffer || !findings.iter().any(is_told) {
            findings.push(finding);
        }
    }
    findings.extend(compared);
    let daemon = evidence.status.is_some();
    Diagnosis { daemon, servers: site.servers(), names: asked.len(), ..Diagnosis::default() }.conclude(findings)
}

/// Where plain DNS is answered: as the running daemon says, else as the configuration does.
fn listeners(plan: &Plan, status: Option<&Status>) -> Vec<SocketAddr> {
    match status {
        Some(status) => status.listen.iter().filter_map(|address| address.parse().ok()).collect(),
        None => plan.boot.listen.iter().filter_map(|listen| listen.endpoint.resolve(|_| None)).collect(),
    }
}

/// The results of futures that run at once, in their order.
async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_pending = false;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(ready) => *output = Some(ready),
                    std::task::Poll::Pending => is_pending = true,
                }
            }
        }
        if is_pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

fn text(diagnosis: &Diagnosis) -> String {
    let mut text = String::new();
    let headings = [(Urgency::First, "Do first"), (Urgency::Soon, "Do soon"), (Urgency::Note, "Good to know")];
    for (urgency, heading) in headings {
        let findings: Vec<&DoctorFinding> =
            diagnosis.findings.iter().filter(|finding| finding.urgency == urgency).collect();
        if findings.is_empty() {
            continue;
        }
        text += &format!("{heading}:\n");
        for finding in findings {
            text += &format!("\n  {}: {}\n", finding.kind, finding.what);
            text += &format!("    means  {}\n    do     {}\n", finding.meaning, finding.advice);
        }
        text.push('\n');
    }
    let asked = format!("{} and {} asked", Plural(diagnosis.servers, "server"), Plural(diagnosis.names, "AWS name"));
    let daemon = if diagnosis.daemon { "" } else { "; no running daemon was reached" };
    let verdict = if diagnosis.healthy { "healthy" } else { "something has to be done" };
    text + &format!("{verdict}: {asked}{daemon}\n")
}
