//! `[[local]]`: the local zones. Their records are read where they are served.

use super::{
    super::{
        file::{File, LocalSection, Located, Text},
        plan::{LocalZone, ZoneData},
        source::written_at,
    },
    Builder,
    forward::Claimant,
};

impl Builder<'_> {
    pub(super) fn local(&mut self, file: &File) -> Vec<LocalZone> {
        file.local.iter().filter_map(|local| self.local_zone(local)).collect()
    }

    fn local_zone(&mut self, local: &Located<LocalSection>) -> Option<LocalZone> {
        let LocalSection { zone, file, records } = &local.value;
        let Some(text) = zone else {
            let message = "a local zone has no name";
            self.problem_with_help(&local.place, message, "write zone = \"corp.example\"");
            return None;
        };
        let zone = self.domain(text)?;
        self.claim(&zone, &[], &Claimant::LocalZone(text.value.as_str().into()), text);
        let file = file.as_ref().filter(|file| !file.value.is_empty());
        let data = match (file, records) {
            (Some(file), None) => ZoneData::File(self.beside(&file.place, &file.value)),
            (None, Some(records)) => {
                let line = |line: &Text| (line.value.clone(), written_at(self.sources, &line.place));
                ZoneData::Records(records.value.iter().map(line).collect())
            }
            (Some(_), Some(records)) => {
                let message = format!("local zone \"{}\" has a file and records; it takes one of them", text.value);
                self.problem(&records.place, message);
                return None;
            }
            (None, None) => {
                let message = format!("local zone \"{}\" has neither a file nor records", text.value);
                self.problem_with_help(&text.place, message, "write records = [\"app 300 A 10.1.2.3\"]");
                return None;
            }
        };
        Some(LocalZone { zone, place: written_at(self.sources, &text.place), data })
    }
}
