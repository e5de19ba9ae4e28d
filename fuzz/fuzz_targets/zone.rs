//! Master-file text: a zone or faults with their places; what the zone answers, at its names and below them, can be
//! read.
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

const HEAD: &str = "@ 300 IN SOA ns hostmaster 1 2 3 4 5\n@ 300 NS ns\nns A 10.0.0.1\n";

fuzz_target!(|text: &[u8]| {
    if text.windows(8).any(|word| word.eq_ignore_ascii_case(b"$include")) {
        return;
    }
    let path: PathBuf = FOLDER.with(|folder| folder.path().join("zone"));
    fs::write(&path, [HEAD.as_bytes(), text].concat()).expect("the folder is writable");
    let configuration = format!(
        "[[local]]\nzone = \"example\"\nfile = {path:?}\n[[forward]]\nzones = [\".\"]\nto = \"x\"\n[upstream.x]\nservers = [\"127.0.0.2:9\"]\n"
    );
    let Ok(plan) = Plan::from_text("fuzz.toml", &configuration) else { panic!("the configuration is good") };
    let Ok(zones) = build_zones(&plan.live, None) else { return };
    // Words of the text as names: some of them are there.
    let words = text.split(|octet| octet.is_ascii_whitespace()).filter_map(|word| std::str::from_utf8(word).ok());
    let names = words.take(8).flat_map(|word| [format!("{word}.example"), format!("x.{word}.example")]);
    for name in names.chain(["example".to_owned(), "no.such.example".to_owned()]) {
        let Ok(name) = name.parse::<Name>() else { continue };
        for qtype in [RecordType::A, RecordType::ANY, RecordType::DS, RecordType::CNAME] {
            let question = LocalQuery { name: &name, qtype, qclass: Class::IN };
            let Some(answer) = zones.answer(&question, |_| true) else { continue };
            let query = UpstreamQuery { name: name.clone(), qtype, qclass: Class::IN, do_bit: false, cd: false };
            let mut asked = [0; UpstreamQuery::MAX];
            let length = query.write(MessageId(0), None, None, &mut asked).expect("it fits");
            hold(&asked[..length], &answer.message);
        }
    }
});
