//! Delegations in local zones: what is asked below a zone cut is resolved, or fails with words; never a referral, which a
//! stub resolver reads as an empty answer.

use std::{fs, path::Path};

use rstest::rstest;

use crate::{
    Config, ask,
    support::{
        namespace,
        query::{flag, rtype},
        records::{Record, Reply},
        tidegate::{Tidegate, run},
        upstream::Upstream,
    },
};

/// The zone of the cases, with a delegation to a server that the zone has the address of and one to others.
fn zone() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/zones/delegations.zone");
    format!("[[local]]\nzone = \"corp.example\"\nfile = {path:?}")
}

/// An address of the case's zone, and port 53, which a test has only in a network of its own.
const DC: &str = "10.1.1.10:53";

fn with_addresses() {
    for address in ["10.1.1.10/32", "10.1.1.11/32"] {
        namespace::command(&["ip", "address", "add", address, "dev", "lo"]);
    }
}

fn domain_controller() -> Upstream {
    let server = Upstream::start_at(DC.parse().expect("an address"));
    server.on("gc._msdcs.corp.example.", rtype::A, Reply::a("10.1.1.10"));
    server.on("public._msdcs.corp.example.", rtype::A, Reply::a("203.0.113.1"));
    let further = Record::raw("sub._msdcs.corp.example.", rtype::NS, 60, b"\x02ns\x04else\0".to_vec());
    server.on("x.sub._msdcs.corp.example.", rtype::A, Reply::of([]).authority(further));
    server
}

#[test]
fn the_servers_of_a_cut_are_asked_without_recursion_where_the_zone_has_their_addresses() {
    let test = "delegations::the_servers_of_a_cut_are_asked_without_recursion_where_the_zone_has_their_addresses";
    namespace::inside(test, || {
        with_addresses();
        let (server, rest) = (domain_controller(), Upstream::start());
        let config = Config::new()
            .upstream("site", &[&rest], "")
            .forward("rest", &["."], "site", "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"")
            .raw(&zone());
        let tidegate = Tidegate::start(&config);
        ask(&tidegate, "gc._msdcs.corp.example", "A")
            .shows(&["NOERROR qr rd ra", "gc._msdcs.corp.example. 300 A 10.1.1.10"]);
        assert_eq!(ask(&tidegate, "none._msdcs.corp.example", "A").status, "NXDOMAIN");
        assert!(server.all_seen().iter().all(|seen| seen.flags & flag::RD == 0), "{:?}", server.all_seen());
        assert!(rest.seen("gc._msdcs.corp.example.").is_empty());

        // The guard of the rule that covers the name without the zone.
        let public = ask(&tidegate, "public._msdcs.corp.example", "A");
        assert!(public.status == "SERVFAIL" && public.text.contains("EDE: 15 (Blocked)"), "{}", public.text);

        let further = ask(&tidegate, "x.sub._msdcs.corp.example", "A");
        assert!(further.status == "SERVFAIL" && further.text.contains("EDE: "), "{}", further.text);

        // DS is the parent's (RFC 4035 3.1.4.1).
        let asked = server.all_seen().len();
        let ds = ask(&tidegate, "_msdcs.corp.example", "DS").shown();
        assert!(ds[0] == "NOERROR qr aa rd ra" && ds[1].contains("authority: corp.example. "), "{ds:?}");
        let again = server.all_seen().iter().skip(asked).filter(|seen| seen.qtype == 43).count();
        assert_eq!(again, 0);
        assert!(
            tidegate.metric("tidegate_upstream_queries_total", &[("group", "delegation:_msdcs.corp.example")]) > 0.0
        );
    });
}

#[test]
fn our_own_listener_is_left_out() {
    namespace::inside("delegations::our_own_listener_is_left_out", || {
        with_addresses();
        let tidegate = Tidegate::start(&Config::new().listen(&[DC]).raw(&zone()));
        let below = ask(&tidegate, "gc._msdcs.corp.example", "A");
        assert!(below.status == "SERVFAIL" && below.text.contains("EDE: "), "{}", below.text);
        assert!(!tidegate.logged("WARN", "our own listener").is_empty(), "{:?}", tidegate.log());
    });
}

#[rstest]
fn without_an_address_it_fails_with_words(
    #[values("aws.corp.example", "web.aws.corp.example", "alias.corp.example")] name: &str,
    #[values("A", "NS", "TXT", "ANY")] qtype: &str,
) {
    let tidegate = Tidegate::start(&Config::new().raw(&zone()));
    if (name, qtype) == ("alias.corp.example", "ANY") {
        assert_eq!(ask(&tidegate, name, qtype).status, "NOERROR");
        return;
    }
    for _ in 0..2 {
        let answer = crate::dig(tidegate.address(), name, &[qtype, "+tcp"]);
        let words = "EDE: 0 (Other): (aws.corp.example. is delegated to servers whose addresses";
        assert!(answer.status == "SERVFAIL" && answer.text.contains(words), "{}", answer.text);
    }
}

#[test]
fn a_rule_for_the_cut_decides_and_check_tells_of_each() {
    let server = Upstream::start();
    server.on("web.aws.corp.example.", rtype::A, Reply::a("10.9.9.9"));
    let config =
        Config::new().upstream("aws", &[&server], "").forward("cut", &["aws.corp.example"], "aws", "").raw(&zone());
    let tidegate = Tidegate::start(&config);
    ask(&tidegate, "web.aws.corp.example", "A").shows(&["NOERROR qr rd ra", "web.aws.corp.example. 300 A 10.9.9.9"]);
    assert_eq!(ask(&tidegate, "alias.corp.example", "A").answers.last().map(String::as_str), Some("10.9.9.9"));

    let check = |config: &Config| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tidegate.toml");
        fs::write(&path, config.text()).expect("the folder is writable");
        let checked = run(&["check".as_ref(), path.as_os_str()]);
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        String::from_utf8_lossy(&checked.stdout).into_owned()
    };
    let told = check(&config);
    assert!(told.contains("delegates aws.corp.example.: rule \"cut\" decides"), "{told}");
    assert!(
        told.contains("delegates _msdcs.corp.example. to dc01.corp.example.: its servers are asked (10.1.1.10)"),
        "{told}"
    );
    let told = check(&Config::new().raw(&zone()));
    assert!(
        told.contains(
            "delegates aws.corp.example. to ns-1.awsdns-00.example., ns-2.awsdns-01.example.: the zone has no"
        ),
        "{told}"
    );
}
