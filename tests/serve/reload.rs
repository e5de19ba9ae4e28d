//! SIGHUP loads a new file, keeps state that it does not change, and refuses a bad one.

use hickory_proto::op::ResponseCode;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    query::{Query, rtype},
    records::Reply,
    script::{Gate, Script},
    tidegate::Tidegate,
    upstream::Upstream,
};

/// Two rules, each with a group of its own.
fn two_rules(kept: &Upstream, changed: &Upstream) -> Config {
    Config::new()
        .upstream("kept", &[kept], ONE_PATIENT_TRY)
        .upstream("changed", &[changed], ONE_PATIENT_TRY)
        .forward("kept", &["kept.example"], "kept", "")
        .forward("changed", &["changed.example"], "changed", "")
}

#[test]
fn a_reload_keeps_the_answers_of_rules_that_stay_and_drops_those_of_rules_that_change() {
    let (kept, before, after) =
        (Upstream::answering("10.1.0.1"), Upstream::answering("10.2.0.1"), Upstream::answering("10.3.0.1"));
    let tidegate = Tidegate::start(&two_rules(&kept, &before));
    let client = tidegate.client();
    assert_eq!(client.ask(&Query::a("www.kept.example.")).address_texts(), ["10.1.0.1"]);
    assert_eq!(client.ask(&Query::a("www.changed.example.")).address_texts(), ["10.2.0.1"]);

    assert!(tidegate.reload(&two_rules(&kept, &after)));
    assert_eq!(client.ask(&Query::a("www.kept.example.")).address_texts(), ["10.1.0.1"]);
    assert_eq!(client.ask(&Query::a("www.changed.example.")).address_texts(), ["10.3.0.1"]);
    assert_eq!(kept.count("www.kept.example."), 1, "its cached answer lived on");
    assert_eq!((before.count("www.changed.example."), after.count("www.changed.example.")), (1, 1));
}

/// A hosts line answers only its own name; a name below it belongs to the zone.
#[test]
fn a_zone_that_changes_changes_names_below_a_host_as_well() {
    let hosts = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(hosts.path(), "10.5.0.1 host.corp.example\n").expect("it is writable");
    let upstream = Upstream::start();
    let config = |address: &str| {
        let records = format!("[\"below.host 300 A {address}\", \"www 300 A {address}\"]");
        Config::forwarding_to(&[&upstream]).raw(&format!(
            "[local_hosts]\nfile = {:?}\n[[local]]\nzone = \"corp.example\"\nrecords = {records}",
            hosts.path()
        ))
    };
    let tidegate = Tidegate::start(&config("10.5.0.2"));
    let shows = |name: &str, address: &str| {
        for _ in 0..2 {
            assert_eq!(tidegate.client().ask(&Query::a(name)).address_texts(), [address], "{name}");
        }
    };
    shows("host.corp.example.", "10.5.0.1");
    shows("below.host.corp.example.", "10.5.0.2");
    shows("www.corp.example.", "10.5.0.2");
    assert!(tidegate.reload(&config("10.5.0.3")), "the file is taken");
    shows("below.host.corp.example.", "10.5.0.3");
    shows("www.corp.example.", "10.5.0.3");
}

#[test]
fn a_failure_under_the_old_configuration_is_not_remembered_under_the_new() {
    let (silent, good) = (Upstream::start(), Upstream::answering("10.0.0.1"));
    silent.on("www.example.", rtype::A, Script::silence());
    let remembering = |upstream| Config::forwarding_to(&[upstream]).section("cache", "failure_ttl = \"5m\"");
    let tidegate = Tidegate::start(&remembering(&silent));
    let socket = tidegate.client().socket();
    socket.send(&Query::a("www.example."));
    silent.wait_for("www.example.", 1);
    assert!(tidegate.reload(&remembering(&good)), "the mended file is taken");

    assert_eq!(socket.receive().rcode(), ResponseCode::ServFail, "its server stays silent");
    let answer = tidegate.client().ask(&Query::a("www.example.").edns());
    assert_eq!(
        (answer.verdict(), answer.address_texts()),
        ((ResponseCode::NoError, None), vec!["10.0.0.1".to_owned()])
    );
}

#[test]
fn a_larger_payload_is_in_force_for_fresh_answers_and_kept_ones() {
    let upstream = Upstream::start();
    upstream.on_type(rtype::A, Reply::addresses(100));
    let sized = |payload| Config::forwarding_to(&[&upstream]).section("server", &format!("udp_payload = {payload}"));
    let tidegate = Tidegate::start(&sized(512));
    let client = tidegate.client();
    assert!(client.ask(&Query::a("before.example.").payload(4096)).truncated());
    assert!(tidegate.reload(&sized(4096)), "the file is taken");
    for name in ["www.example.", "www.example.", "before.example."] {
        let answer = client.ask(&Query::a(name).payload(4096));
        assert_eq!((answer.truncated(), answer.addresses().len()), (false, 100), "{name}");
    }
    assert!(tidegate.reload(&sized(512)), "the file is taken");
    assert!(client.ask(&Query::a("www.example.").payload(4096)).truncated());
}

#[test]
fn a_reload_changes_how_much_is_logged() {
    let (one, other) = (Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&one]));
    let more = Config::forwarding_to(&[&other]).section("log", "level = \"debug\"");
    assert!(tidegate.reload(&more), "the file is taken");
    tidegate.await_logged("DEBUG", " of group ");
}

#[test]
fn another_group_in_front_changes_nothing_for_the_rest() {
    let (kept, other) = (Upstream::answering("10.1.0.1"), Upstream::answering("10.2.0.1"));
    let config = Config::new().upstream("site", &[&kept], "").forward("site", &["site.example"], "site", "");
    let tidegate = Tidegate::start(&config);
    tidegate.client().ask(&Query::a("www.site.example."));
    let more = config.upstream("before", &[&other], "").forward("before", &["before.example"], "before", "");
    assert!(tidegate.reload(&more));
    assert_eq!(tidegate.client().ask(&Query::a("www.site.example.")).address_texts(), ["10.1.0.1"]);
    assert_eq!(kept.count("www.site.example."), 1, "its cached answer lived on");
}

#[test]
fn an_unchanged_file_changes_nothing() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]);
    let tidegate = Tidegate::start(&config);
    tidegate.client().ask(&Query::a("www.example."));
    for _ in 0..3 {
        assert!(tidegate.reload(&config));
        assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    }
    assert_eq!(upstream.count("www.example."), 1);
}

#[test]
fn a_bad_file_leaves_the_old_one_in_force() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::forwarding_to(&[&upstream]);
    let tidegate = Tidegate::start(&config);
    tidegate.client().ask(&Query::a("www.example."));

    assert!(!tidegate.reload_text("[server\nlisten = nonsense"));
    assert!(!tidegate.reload_text("[[forward]]\nzones = [\".\"]\nto = \"nowhere\"\n"));
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    assert_eq!(tidegate.client().ask(&Query::a("new.example.")).address_texts(), ["10.0.0.1"]);
    assert_eq!(upstream.count("www.example."), 1, "the cache is untouched");
    assert!(tidegate.reload(&config), "a good file is taken again");
}

#[test]
fn a_new_rule_and_a_new_list_of_clients_are_in_force_at_once() {
    let upstream = Upstream::answering("10.0.0.1");
    let narrow = Config::new().upstream("site", &[&upstream], "").forward("one", &["one.example"], "site", "");
    let tidegate = Tidegate::start(&narrow);
    let client = tidegate.client();
    assert_eq!(client.ask(&Query::a("www.two.example.").edns()).verdict(), (ResponseCode::Refused, Some(20)));

    let wide = narrow.clone().forward("two", &["two.example"], "site", "");
    assert!(tidegate.reload(&wide));
    assert_eq!(client.ask(&Query::a("www.two.example.")).address_texts(), ["10.0.0.1"]);

    assert!(tidegate.reload(&wide.section("server", "deny = [\"127.0.0.1/32\"]")));
    assert_eq!(client.ask(&Query::a("www.two.example.").edns()).verdict(), (ResponseCode::Refused, Some(18)));
    assert_eq!(client.at("127.0.0.2").ask(&Query::a("www.two.example.")).address_texts(), ["10.0.0.1"]);
}

#[test]
fn a_key_that_needs_a_restart_is_named_and_the_rest_is_taken() {
    let upstream = Upstream::answering("10.0.0.1");
    let tidegate = Tidegate::start(&Config::forwarding_to(&[&upstream]).section("server", "workers = 1"));
    let other = Config::new().section("server", "workers = 2").upstream("site", &[&upstream], "").forward(
        "narrow",
        &["one.example"],
        "site",
        "",
    );
    assert!(tidegate.reload(&other));
    tidegate.await_logged("WARN", "workers");
    assert_eq!(tidegate.client().ask(&Query::a("www.two.example.")).rcode(), ResponseCode::Refused);
}

#[test]
fn a_query_under_way_is_answered_across_a_reload() {
    let upstream = Upstream::answering("10.0.0.1");
    let gate = Gate::default();
    upstream.on("slow.example.", rtype::A, Script::held(&gate, Reply::a("10.0.0.9")));
    let config = Config::forwarding_to(&[&upstream]);
    let tidegate = Tidegate::start(&config);
    let socket = tidegate.client().socket();
    socket.send(&Query::a("slow.example."));
    upstream.wait_for("slow.example.", 1);

    assert!(tidegate.reload(&config.section("cache", "max_ttl = \"1h\"")));
    gate.open();
    assert_eq!(socket.receive().address_texts(), ["10.0.0.9"]);
}

#[test]
fn no_query_is_lost_while_files_are_swapped() {
    let (one, two) = (Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.2"));
    let configs = [Config::forwarding_to(&[&one]), Config::forwarding_to(&[&two])];
    let tidegate = Tidegate::start(&configs[0]);
    let socket = tidegate.client().socket();
    for turn in 0..10 {
        let queries: Vec<Query> = (0..20).map(|n| Query::a(&format!("n{}.example.", turn * 10 + n))).collect();
        queries.iter().for_each(|query| socket.send(query));
        assert!(tidegate.reload(&configs[(turn + 1) % 2]));
        for _ in &queries {
            let answer = socket.receive();
            assert_eq!(answer.rcode(), ResponseCode::NoError, "turn {turn}: {answer:?}");
        }
    }
}

#[test]
fn the_start_and_a_reload_say_which_aws_names_have_no_guard() {
    let upstream = Upstream::answering("10.20.0.1");
    let config =
        |keys: &str| Config::new().upstream("vpc", &[&upstream], "").forward("aws", &["amazonaws.com"], "vpc", keys);
    let guard = "private = [\"10.20.0.0/16\"]\non_public = \"refuse\"";
    let said = "sends AWS names";
    let unguarded = Tidegate::start(&config(""));
    unguarded.logged_once("WARN", said);

    let tidegate = Tidegate::start(&config(guard));
    assert_eq!(tidegate.logged("WARN", said).len(), 0, "{:?}", tidegate.log());
    assert!(!tidegate.reload(&config("on_public = \"refuse\"")), "a guard without networks is none");
    tidegate.await_logged("ERROR", "has `on_public` and no networks in `private`");
    assert!(!tidegate.reload(&config(&format!("{guard}\nexcept = [\"amazonaws.com\"]"))), "it spares all");
    tidegate.await_logged("ERROR", "excepts all of its zones: it guards nothing");
    assert!(tidegate.reload(&config("")));
    tidegate.await_logged("WARN", said);
}
