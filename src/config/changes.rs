//! What a reload changes, in lines for people.

use super::plan::Live;

impl Live {
    /// What `new` has that this has not, and the other way round; empty where they are the same.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        compare("rule", (&self.rules, &new.rules), |rule| rule.name.clone(), &mut lines);
        compare("upstream", (&self.groups, &new.groups), |group| group.name.clone(), &mut lines);
        compare("local zone", (&self.local, &new.local), |local| local.zone.to_string(), &mut lines);
        let rest = |live: &Self| Self { rules: Vec::new(), groups: Vec::new(), local: Vec::new(), ..live.clone() };
        if rest(self) != rest(new) {
            lines.push("other settings changed".to_owned());
        }
        lines
    }
}

fn compare<T: PartialEq>(kind: &str, (old, new): (&[T], &[T]), name: impl Fn(&T) -> String, lines: &mut Vec<String>) {
    for item in new {
        match old.iter().find(|other| name(other) == name(item)) {
            None => lines.push(format!("{kind} {} is new", name(item))),
            Some(other) if other != item => lines.push(format!("{kind} {} changed", name(item))),
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|item| !new.iter().any(|other| name(other) == name(item)));
    lines.extend(gone.map(|item| format!("{kind} {} is gone", name(item))));
}
