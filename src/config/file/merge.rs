//! Merges included files into the including one: lists of tables are joined, and a table that is there twice is a
//! problem that names both places.

use super::{
    super::{
        error::Problem,
        source::{Place, Source, locate},
    },
    File, Located,
};

impl File {
    /// Adds the content of `other`.
    pub(super) fn merge(&mut self, other: Self, sources: &[Source], problems: &mut Vec<Problem>) {
        let mut merge = Merge { sources, problems };
        merge.set_once("[server]", &mut self.server, other.server);
        merge.set_once("[limits]", &mut self.limits, other.limits);
        merge.set_once("[cache]", &mut self.cache, other.cache);
        merge.set_once("[admin]", &mut self.admin, other.admin);
        merge.set_once("[log]", &mut self.log, other.log);
        merge.set_once("[local_hosts]", &mut self.local_hosts, other.local_hosts);
        merge.set_once("[perimeter]", &mut self.perimeter, other.perimeter);
        merge.set_once("[special]", &mut self.special, other.special);
        for upstream in other.upstream {
            let name = &upstream.name;
            match self.upstream.iter().find(|known| known.name.value == name.value) {
                Some(known) => {
                    merge.report_duplicate(&format!("[upstream.{}]", name.value), &known.name.place, &name.place)
                }
                None => self.upstream.push(upstream),
            }
        }
        self.forward.extend(other.forward);
        self.local.extend(other.local);
    }
}

struct Merge<'a> {
    sources: &'a [Source],
    problems: &'a mut Vec<Problem>,
}

impl Merge<'_> {
    fn set_once<T>(&mut self, name: &str, ours: &mut Option<Located<T>>, theirs: Option<Located<T>>) {
        match (ours.as_ref(), theirs) {
            (Some(ours), Some(theirs)) => self.report_duplicate(name, &ours.place, &theirs.place),
            (None, Some(theirs)) => *ours = Some(theirs),
            (_, None) => {}
        }
    }

    fn report_duplicate(&mut self, name: &str, first: &Place, second: &Place) {
        let first = locate(self.sources, first);
        let problem = Problem::at(second, format!("{name} stands at {first} already"));
        self.problems.push(problem.help("a table stands in one file; put its keys together there"));
    }
}
