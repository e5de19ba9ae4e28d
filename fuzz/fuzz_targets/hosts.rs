//! A hosts file of any octets: names or faults with their places, and answers that can be read.
#![no_main]

use std::{fs, path::PathBuf};

use fuzz::hold;
use libfuzzer_sys::fuzz_target;
use tidegate::{
    config::Plan,
    daemon::build_zones,
    wire::{Class, MessageId, Name, RecordType, UpstreamQuery},
    zones::LocalQuery,
};

thread_local!(static FOLDER: tempfile::TempDir = tempfile::tempdir_in("/dev/shm").expect("memory for a file"));

fuzz_target!(|text: &[u8]| {
    let path: PathBuf = FOLDER.with(|folder| folder.path().join("hosts"));
    fs::write(&path, text).expect("the folder is writable");
    let configuration = format!(
        "[local_hosts]\nfile = {path:?}\n[[forward]]\nzones = [\".\"]\nto = \"x\"\n[upstream.x]\nservers = [\"127.0.0.2:9\"]\n"
    );
    let plan = Plan::from_text("fuzz.toml", &configuration).unwrap_or_else(|problems| panic!("{problems:?}"));
    let Ok(zones) = build_zones(&plan.live, None) else { return };
    let names: Vec<Name> = zones.domains().map(|domain| domain.name.clone()).take(8).collect();
    for name in names {
        for qtype in [RecordType::A, RecordType::AAAA, RecordType::PTR, RecordType::ANY] {
            let question = LocalQuery { name: &name, qtype, qclass: Class::IN };
            let answer = zones.answer(&question, |_| true).expect("it is one of its names");
            let query = UpstreamQuery { name: name.clone(), qtype, qclass: Class::IN, do_bit: false, cd: false };
            let mut asked = [0; UpstreamQuery::MAX];
            let length = query.write(MessageId(0), None, None, &mut asked).expect("it fits");
            hold(&asked[..length], &answer.message);
        }
    }
});
