//! `flush`.

use serde_json::Value;

use crate::{
    Place,
    support::{
        config::ONE_PATIENT_TRY,
        query::{Query, rtype},
        tidegate::Tidegate,
        upstream::Upstream,
    },
};

#[test]
fn a_flush_forgets_what_it_names() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = place.config().upstream("vpc", &[&upstream], ONE_PATIENT_TRY).forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    let names = ["a.one.example.", "b.one.example.", "one.example.", "two.example."];
    let ask = || names.map(|name| tidegate.client().ask(&Query::a(name)).address_texts());
    let counts = || names.map(|name| upstream.count(name));
    ask();
    for (words, said, after) in [
        (&["flush", "A.one.example"][..], "1 answer forgotten\n", [2, 1, 1, 1]),
        (&["flush", "nobody.example"], "0 answers forgotten\n", [2, 1, 1, 1]),
        (&["flush", "--zone", "one.example."], "3 answers forgotten\n", [3, 2, 2, 1]),
        (&["flush", "--all"], "4 answers forgotten\n", [4, 3, 3, 2]),
    ] {
        assert_eq!(place.says(words), (Some(0), said.to_owned()));
        ask();
        assert_eq!(counts(), after, "{words:?}");
    }
    // An address means its PTR, a network its reverse zone.
    for words in [&["flush", "8.8.4.4"][..], &["flush", "--zone", "8.8.0.0/16"]] {
        tidegate.client().ask(&Query::new("4.4.8.8.in-addr.arpa.", rtype::PTR));
        assert_eq!(place.says(words), (Some(0), "1 answer forgotten\n".to_owned()));
    }
    let json: Value = serde_json::from_slice(&place.order(&["flush", "--all", "--json"]).stdout).unwrap();
    assert_eq!(json["forgotten"], 4, "{json}");
    assert_eq!(place.order(&["flush"]).status.code(), Some(2), "nothing is named");
    for words in [&["flush", "s3..foo"][..], &["flush", "--zone", "s3..foo"]] {
        let output = place.order(words);
        assert_eq!(output.status.code(), Some(2), "that is no name");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("'s3..foo'") && said.contains("empty label"), "it says which word is wrong: {said}");
    }
    let wildcard = place.order(&["flush", "--zone", "*.one.example"]);
    assert_eq!(wildcard.status.code(), Some(2), "nothing is below such a name");
    let said = String::from_utf8_lossy(&wildcard.stderr);
    assert!(said.contains("covers all names below it as it is: write one.example"), "{said}");
}
