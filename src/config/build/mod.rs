//! From [`File`] to [`Plan`]: every check, every default.
//!
//! Building does not stop at the first problem: it is noted, a default takes its place, and the plan is returned only
//! if there was no problem.

mod encrypted;
mod forward;
mod guard;
mod local;
mod own;
mod server;
mod upstream;
mod values;
mod warn;

use std::{borrow::Cow, sync::Arc};

use hashbrown::{HashMap, HashSet};

use self::forward::{Claim, WrittenRule};
pub(super) use self::server::admin_http;
pub(crate) use self::values::{behind_wildcards, is_host_address};
pub(super) use self::values::{path, without_dot};
use super::{
    error::{Problem, Problems},
    file::{File, Loaded, Located, Text},
    group::{GroupIndex, Share},
    plan::{Live, Plan, QueryLogPolicy, RulePlan, RuleSettings},
    source::Source,
};
use crate::wire::Name;

/// Builds the plan of a loaded configuration, or returns all of its problems.
pub(super) fn build(loaded: Loaded) -> Result<Plan, Problems> {
    let Loaded { mut file, sources, problems, warnings, .. } = loaded;
    let mut builder = Builder {
        sources: &sources,
        problems,
        warnings,
        claims: HashMap::new(),
        settings: HashSet::new(),
        rules: Vec::new(),
    };
    let boot = builder.boot(&file);
    let mut live = builder.live(&mut file);
    builder.leave_out_own_listeners(&file, &boot, &mut live);
    builder.warn(&file, &live);
    let Builder { problems, warnings, .. } = builder;
    let sources = Arc::new(sources);
    if !problems.is_empty() {
        return Err(Problems::new(sources, problems));
    }
    Ok(Plan { boot, live, warnings: Problems::warnings(sources, warnings) })
}

/// A plan under construction.
struct Builder<'a> {
    sources: &'a [Source],
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// Who claims each zone, to find duplicates.
    claims: HashMap<Name, Vec<Claim>>,
    /// The settings of rules, each once.
    settings: HashSet<Arc<RuleSettings>>,
    /// What warnings need of the rules in the file, in their order.
    rules: Vec<WrittenRule>,
}

impl Builder<'_> {
    fn live(&mut self, file: &mut File) -> Live {
        let cache = self.cache_policy(file);
        let local = self.local(file);
        let rules = self.rules(file, &cache);
        let file = &*file;
        let server = section(file.server.as_ref());
        let bounds = section(file.limits.as_ref());
        let log = section(file.log.as_ref());
        let groups = self.groups(file, &rules);
        Live {
            access: self.access(&server),
            deadline: server.deadline(),
            lameduck: server.lameduck(),
            udp_payload: u16::try_from(server.udp_payload()).unwrap_or(u16::MAX),
            cookie_secrets: self.cookie_secrets(server.cookie_secrets.as_ref()),
            chaos: self.chaos(server.chaos.as_ref()),
            in_flight: bounds.in_flight(),
            client_limit: self.client_limit(&bounds),
            balancers: self.networks(server.proxy_protocol.as_ref()),
            certificate: self.certificate(&server),
            cache,
            admin: self.admin_access(file),
            log_level: log.level(),
            query_log: QueryLogPolicy { queries: log.queries(), sample: Share::of(log.sample()) },
            groups,
            rules,
            local,
            hosts: self.path(section(file.local_hosts.as_ref()).file.as_ref()),
            special: server::special(file),
        }
    }

    fn groups(&mut self, file: &File, rules: &[RulePlan]) -> Vec<super::group::GroupPlan> {
        let upstreams = file.upstream.iter().enumerate();
        upstreams.map(|(at, upstream)| self.group(upstream, GroupIndex(at), rules)).collect()
    }

    /// Checks a name for logs and metrics: any text that fits in a line.
    fn check_label(&mut self, text: &Text, whose: &str) {
        if text.value.is_empty() || text.value.len() > 128 || text.value.contains(char::is_control) {
            self.problem(&text.place, format!("the name of {whose} must be 1 to 128 letters on one line"));
        }
    }
}

/// A table, or an empty one if it is absent.
fn section<T: Clone + Default>(table: Option<&Located<T>>) -> Cow<'_, T> {
    table.map_or_else(|| Cow::Owned(T::default()), |table| Cow::Borrowed(&table.value))
}
