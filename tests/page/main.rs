//! The status page as a person reads it in Chromium: each state, with and without JavaScript.

#![allow(clippy::unwrap_used, reason = "tests")]

mod browser;
#[path = "../support/mod.rs"]
mod support;

use browser::{Browser, Scripts};
use rstest::rstest;
use support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually,
    query::Query,
    tidegate::Tidegate,
    upstream::Upstream,
};

/// Probes that tell soon.
const PROBED_OFTEN: &str = "attempts = 1\nhedge = false\ntimeout = \"500ms\"\n[upstream.vpc.health]\ninterval = \"200ms\"\n\
                            interval_down = \"100ms\"";
/// A rule that lets only private addresses through.
const GUARDED: &str = "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"";

/// A daemon in front of two addresses of an inbound endpoint and a site's DNS.
struct Site {
    vpc: [Upstream; 2],
    /// Held for as long as the daemon runs.
    _site: Upstream,
    config: Config,
    tidegate: Tidegate,
}

impl Site {
    #[track_caller]
    fn start() -> Self {
        let vpc = [Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.1")];
        let site = Upstream::answering("10.9.0.1");
        let config = Config::new()
            .section("cache", "max_ttl = \"1s\"")
            .upstream("vpc", &[&vpc[0], &vpc[1]], PROBED_OFTEN)
            .upstream("site", &[&site], ONE_PATIENT_TRY)
            .forward("aws", &["amazonaws.com"], "vpc", GUARDED)
            .forward("everything", &["."], "site", "");
        let tidegate = Tidegate::start(&config);
        eventually("a verdict on every server", || tidegate.get("/readyz").0 == 200);
        Self { vpc, _site: site, config, tidegate }
    }

    fn page(&self) -> String {
        format!("http://{}/", self.tidegate.admin_address())
    }

    fn ask(&self, name: &str) -> support::client::Answer {
        self.tidegate.client().ask(&Query::a(name))
    }
}

/// A browser that shows the site's page.
#[track_caller]
fn show(site: &Site, scripts: Scripts) -> Browser {
    let browser = Browser::start(scripts);
    browser.open(&site.page());
    browser
}

const HEALTHY: [&str; 6] = [
    "All is well",
    "vpc\n✓ all 2 servers are usable",
    "site\n✓ its server is usable",
    "Guard violations\n0\n",
    "Not reloaded since the start.",
    "✓ up",
];

#[rstest]
#[case::with_javascript(Scripts::On)]
#[case::without_javascript(Scripts::Off)]
fn all_is_well_in_one_glance(#[case] scripts: Scripts) {
    let site = Site::start();
    site.ask("www.example.");
    site.ask("www.example.");
    let browser = show(&site, scripts);
    let text = browser.reads(&HEALTHY);
    assert!(text.contains("Queries\n2\n2 UDP") && text.contains("Hit ratio\n50.0 %\nhits 1, misses 1"), "{text}");
    assert!(text.contains("Time to respond\nUp to Share Responses\n"), "{text}");
    assert!(text.contains(&format!("Answers on {}", site.tidegate.address())), "{text}");
    for server in &site.vpc {
        assert!(text.contains(&server.address.to_string()), "{text}");
    }
    assert_eq!(browser.title(), "✓ All is well – tidegate");
    browser.reads(&["Hottest\nThe last ", ": 2 queries.", "www.example\n2 100.0 %", "127.0.0.1\n2 100.0 %", "✓ none"]);
}

#[rstest]
#[case::with_javascript(Scripts::On)]
#[case::without_javascript(Scripts::Off)]
fn a_group_that_goes_down_is_told_without_a_key_pressed(#[case] scripts: Scripts) {
    let site = Site::start();
    let browser = show(&site, scripts);
    browser.reads(&HEALTHY);
    site.vpc.iter().for_each(Upstream::go_silent);
    let text = browser.reads(&[
        "Clients do not get the answers they should",
        "Error: upstream vpc: no server is usable: 2 down",
        "vpc\n✗ no server is usable: 2 down",
        "✗ down: ",
        "site\n✓ its server is usable",
    ]);
    assert!(!text.contains("All is well"), "{text}");
    assert_eq!(browser.title(), "✗ Clients do not get the answers they should – tidegate");
}

#[rstest]
#[case::with_javascript(Scripts::On)]
#[case::without_javascript(Scripts::Off)]
fn a_guard_violation_is_told_with_the_name(#[case] scripts: Scripts) {
    let site = Site::start();
    for server in &site.vpc {
        server.on(
            "leak.amazonaws.com.",
            support::query::rtype::A,
            support::records::Reply::of([support::records::Record::a("@", 60, "203.0.113.9")]),
        );
    }
    site.ask("leak.amazonaws.com.");
    let browser = show(&site, scripts);
    let text =
        browser.reads(&["Something needs attention", "Guard violations\n1\n1 refused, 0 stripped, 0 only logged"]);
    assert!(text.contains("Warning: ") && text.contains("leak.amazonaws.com"), "{text}");
    assert!(text.contains("vpc\n✓ all 2 servers are usable"), "the servers are not to blame: {text}");
    assert!(text.contains("Perimeter\n") && text.contains(" 0 privately, 1 publicly, "), "{text}");
    assert!(text.contains("! leak.amazonaws.com 203.0.113.9 aws 1 "), "{text}");
}

#[test]
fn a_backup_tier_in_use_is_told() {
    let (preferred, backup) = (Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.1"));
    let (_other, config) = tiered(&preferred, &backup);
    let tidegate = Tidegate::start(&config);
    let browser = Browser::start(Scripts::On);
    browser.open(&format!("http://{}/", tidegate.admin_address()));
    browser.reads(&["All is well", "preferred, in use", "backup 1 ✓ up"]);
    preferred.go_silent();
    browser.reads(&[
        "Something needs attention; clients are answered",
        "Warning: upstream vpc uses its backup tier 1: no server before it is usable",
        "backup 1, in use",
    ]);
}

/// A group of two tiers, and a site's DNS.
fn tiered(preferred: &Upstream, backup: &Upstream) -> (Upstream, Config) {
    let site = Upstream::answering("10.9.0.1");
    let tiers = format!("backup = [[\"{}\"]]\n{PROBED_OFTEN}", backup.address);
    let config = Config::new()
        .upstream("vpc", &[preferred], &tiers)
        .upstream("site", &[&site], ONE_PATIENT_TRY)
        .forward("aws", &["amazonaws.com"], "vpc", "")
        .forward("everything", &["."], "site", "");
    (site, config)
}

#[test]
fn failures_and_the_last_hour_of_a_server_are_shown() {
    let site = Site::start();
    site.vpc.iter().for_each(Upstream::go_silent);
    site.ask("sts.amazonaws.com.");
    let browser = show(&site, Scripts::On);
    browser.reads(&["Hottest\n", "sts.amazonaws.com SERVFAIL, No Reachable Authority 1"]);
    let label = "return document.querySelector('svg.sparkline').getAttribute('aria-label');";
    eventually("the minute that it was down in", || {
        browser
            .run(label)
            .as_str()
            .is_some_and(|label| label.starts_with("Last hour: ") && label.contains(", down in "))
    });
}

#[test]
fn a_reload_is_an_event_with_what_changed() {
    let site = Site::start();
    let browser = show(&site, Scripts::On);
    assert!(site.tidegate.reload(&site.config.clone().section("server", "udp_payload = 1400")));
    browser.reads(&["Lately\n", "✓ the configuration was reloaded: "]);
    assert!(!site.tidegate.reload_text("broken"));
    browser.reads(&["! a reload was refused: "]);
}

/// What a person asks stays there while the page goes on.
#[rstest]
#[case::with_javascript(Scripts::On)]
#[case::without_javascript(Scripts::Off)]
fn a_query_is_explained(#[case] scripts: Scripts) {
    let site = Site::start();
    let browser = show(&site, scripts);
    browser.reads(&["Explain a query\n"]);
    if scripts == Scripts::Off {
        browser.open(&format!("{}explain", site.page()));
    }
    browser.type_into("#name", "S3.amazonaws.com");
    browser.type_into("#client", "127.0.0.9\u{e007}");
    let explained = ["s3.amazonaws.com. A from 127.0.0.9 over udp", "rule aws", "upstream  vpc", "outcome: "];
    browser.reads(&explained);
    if scripts == Scripts::On {
        site.ask("www.example.");
        browser.reads(&["Queries\n1\n", explained[0]]);
        assert_eq!(browser.run("return document.querySelector('#name').value;"), "S3.amazonaws.com");
        assert_eq!(browser.run("return location.pathname;"), "/");
    } else {
        browser.open(&format!("{}explain?name=a..b", site.page()));
        browser.reads(&["✗ \"a..b\" is no name"]);
    }
    assert_eq!(browser.complaints().iter().filter(|line| !line.contains("400")).count(), 0);
}

/// Also for who was not there when it happened.
#[test]
fn events_are_shown_with_their_time() {
    let mut site = Site::start();
    site.vpc[0].stop();
    let down = format!("upstream {} of group vpc is down", site.vpc[0].address);
    let browser = show(&site, Scripts::On);
    let text = browser.reads(&["Lately\n", &format!("! {down}"), "Something needs attention"]);
    assert!(text.contains("vpc\n! 1 of 2 servers is usable: 1 down"), "{text}");
    site.vpc[0].start_again();
    let text = browser.reads(&["All is well", &format!("✓ over: {down}")]);
    assert!(text.contains(&format!("! {down}")) && text.contains(" ago\n"), "{text}");
}

#[test]
fn the_last_hour_is_shown_in_words_and_as_a_chart() {
    let site = Site::start();
    for name in ["www.example.", "www.example.", "www.example.", "mail.example."] {
        site.ask(name);
    }
    let browser = show(&site, Scripts::On);
    browser.reads(&["The last hour\n4 queries, ", "Hit ratio 50.0 %. 0 failed, 0 guard violations."]);
    let drawn = browser.run("return document.querySelector('svg.hour rect.queries').getBoundingClientRect().height;");
    assert!(drawn.as_f64().unwrap() > 10.0, "{drawn}");
}

#[test]
fn stale_answers_in_an_outage_are_counted() {
    let site = Site::start();
    site.ask("s3.amazonaws.com.");
    site.vpc.iter().for_each(Upstream::go_silent);
    eventually("an answer past its TTL", || {
        site.ask("s3.amazonaws.com.");
        site.tidegate.metric("tidegate_cache_stale_total", &[]) > 0.0
    });
    let browser = show(&site, Scripts::On);
    let text = browser.reads(&["Clients do not get the answers they should", "Answered past TTL\n"]);
    assert!(!text.contains("Answered past TTL\n0\n"), "{text}");
}

#[test]
fn a_refused_reload_is_reported_with_its_reasons() {
    let site = Site::start();
    let browser = show(&site, Scripts::On);
    assert!(!site.tidegate.reload_text(&site.config.clone().forward("more", &["x.example"], "<b>&amp;", "").text()));
    let text = browser.reads(&["Last reload ", "refused; the configuration before it stays in force"]);
    assert!(text.contains("Warning: ") && text.contains("\"<b>&amp;\""), "as it was written: {text}");
    assert!(site.tidegate.reload(&site.config));
    let text = browser.reads(&["All is well", ": in force"]);
    assert!(!text.contains("refused; the configuration"), "{text}");
}

/// What stood there last must not pass for what is.
#[test]
fn a_missing_daemon_is_reported() {
    let site = Site::start();
    let browser = show(&site, Scripts::On);
    browser.reads(&HEALTHY);
    let Site { tidegate, vpc, _site, .. } = site;
    tidegate.stop();
    browser.reads(&["tidegate does not answer. What stands below is as of "]);
    drop(vpc);
}

/// A refresh does not disturb a selection, an unfolded part or the focus.
#[test]
fn a_refresh_touches_only_what_changed() {
    let site = Site::start();
    let browser = show(&site, Scripts::On);
    browser.reads(&HEALTHY);
    browser.run("window.heading = document.querySelector('h3'); document.querySelector('footer a').focus();");
    site.ask("www.example.");
    browser.reads(&["Queries\n1\n"]);
    let same = "return window.heading === document.querySelector('h3') \
                && document.activeElement === document.querySelector('footer a');";
    assert_eq!(browser.run(same), true);
}

#[test]
fn the_page_follows_dark_mode_and_loads_nothing_from_elsewhere() {
    let site = Site::start();
    let browser = show(&site, Scripts::On);
    let brightness = || {
        let script = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0];";
        browser.run(script).as_i64().unwrap()
    };
    browser.prefer("light");
    assert!(brightness() > 200);
    browser.prefer("dark");
    assert!(brightness() < 60);

    let loaded = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name);");
    let loaded: Vec<&str> = loaded.as_array().unwrap().iter().filter_map(|name| name.as_str()).collect();
    assert!(
        loaded.iter().any(|name| name.ends_with("/app.css")) && loaded.iter().any(|name| name.ends_with("/app.js"))
    );
    assert!(loaded.iter().all(|name| name.starts_with(&site.page()) || name.starts_with("data:")), "{loaded:?}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// The page is pushed by the daemon: nothing is fetched again and again.
#[test]
fn a_change_comes_as_an_event() {
    let site = Site::start();
    let browser = show(&site, Scripts::On);
    browser.reads(&HEALTHY);
    browser.run(
        "window.fetched = 0; const fetch = window.fetch; window.fetch = (...all) => (window.fetched++, fetch(...all));",
    );
    for queries in 1..=3 {
        site.ask("www.example.");
        browser.reads(&[&format!("Queries\n{queries}\n")]);
    }
    let loaded = "return performance.getEntriesByType('resource').filter((entry) => new URL(entry.name).pathname === '/').length;";
    // A busy machine may be late with an event; then the page is fetched once.
    let (fetched, loaded) = (browser.run("return window.fetched;"), browser.run(loaded));
    assert!(fetched.as_i64().unwrap() <= 1 && loaded.as_i64().unwrap() <= 1, "{fetched} {loaded}");
}

#[rstest]
#[case::phone(360)]
#[case::tablet(800)]
#[case::wide(1920)]
fn nothing_is_wider_than_the_window(#[case] width: u32) {
    let site = Site::start();
    assert!(!site.tidegate.reload_text("broken"));
    site.vpc.iter().for_each(Upstream::go_silent);
    let long = format!("{}.amazonaws.com.", ["a-label-that-is-as-long-as-they-come-and-then-some-more"; 3].join("."));
    site.ask(&long);
    let browser = show(&site, Scripts::On);
    browser.resize(width);
    browser.reads(&["Last reload ", "Hottest\n", "no server is usable: 2 down"]);
    let overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth;";
    assert_eq!(browser.run(overflow), 0);
}

/// Links and whatever scrolls are reached with the Tab key, in the order in which they stand.
#[test]
fn everything_is_reached_with_the_keyboard() {
    let site = Site::start();
    assert!(!site.tidegate.reload_text("broken"));
    let browser = show(&site, Scripts::On);
    browser.reads(&["Last reload "]);
    let mut reached = Vec::new();
    for _ in 0..13 {
        browser.press("\u{e004}");
        let focused =
            browser.run("const at = document.activeElement; return at.getAttribute('href') || at.name || at.tagName;");
        reached.push(focused.as_str().unwrap().to_owned());
    }
    let form = ["name", "type", "client", "address", "BUTTON"];
    let links = ["/metrics"].into_iter().map(str::to_owned);
    let documents = ["status", "upstreams", "rules", "perimeter", "top", "openapi.json"];
    let links = links.chain(documents.iter().map(|document| format!("/api/v1/{document}")));
    assert_eq!(reached, form.into_iter().chain(["PRE"]).map(str::to_owned).chain(links).collect::<Vec<_>>());
}

/// Pictures of the page in the states that it has, for people to look at.
#[rstest]
#[ignore = "SCREENSHOTS names a folder for the pictures"]
fn pictures() {
    let folder = std::path::PathBuf::from(std::env::var_os("SCREENSHOTS").expect("SCREENSHOTS names a folder"));
    let browser = Browser::start(Scripts::On);
    let take = |state: &str, expected: &[&str]| {
        browser.reads(expected);
        for (width, scheme) in [(1200, "light"), (1200, "dark"), (390, "light"), (390, "dark")] {
            browser.resize(width);
            browser.prefer(scheme);
            std::fs::write(folder.join(format!("{state}-{width}-{scheme}.png")), browser.picture()).unwrap();
        }
    };
    let (preferred, backup) = (Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.1"));
    let (_other, config) = tiered(&preferred, &backup);
    let tiers = Tidegate::start(&config);
    preferred.go_silent();
    browser.open(&format!("http://{}/", tiers.admin_address()));
    take("tier-down", &["uses its backup tier 1", "backup 1, in use"]);

    let site = Site::start();
    for name in ["www.example.", "s3.eu-west-1.amazonaws.com.", "sts.eu-west-1.amazonaws.com.", "mail.example."] {
        (0..name.len()).for_each(|_| drop(site.ask(name)));
    }
    browser.open(&site.page());
    browser.reads(&["Hottest\n"]);
    browser.type_into("#name", "s3.eu-west-1.amazonaws.com\u{e007}");
    take("healthy", &[HEALTHY[0], "outcome: "]);
    for server in &site.vpc {
        let leak = support::records::Record::a("@", 60, "203.0.113.9");
        server.on("leak.amazonaws.com.", support::query::rtype::A, support::records::Reply::of([leak]));
    }
    site.ask("leak.amazonaws.com.");
    take("guard", &["Guard violations\n1\n", "Failures\n"]);
    assert!(!site.tidegate.reload_text("[[forward]]\nzones = [\"x.example\"]\nto = \"nowhere\"\n"));
    take("reload-refused", &["Last reload "]);
    site.vpc.iter().for_each(Upstream::go_silent);
    eventually("an answer past its TTL", || {
        site.ask("s3.eu-west-1.amazonaws.com.");
        site.tidegate.metric("tidegate_cache_stale_total", &[]) > 0.0
    });
    take("all-down", &["no server is usable: 2 down"]);
}

/// axe-core, which `tests/run` fetches, knows the rules of accessible pages (WCAG 2.2) better than we do.
#[rstest]
#[case::light("light")]
#[case::dark("dark")]
#[ignore = "tests/run fetches axe-core and runs it"]
fn axe_finds_nothing(#[case] scheme: &str) {
    let axe = std::env::var("AXE_CORE").expect("AXE_CORE names axe.min.js");
    let axe = std::fs::read_to_string(&axe).unwrap();
    let site = Site::start();
    let browser = show(&site, Scripts::On);
    browser.prefer(scheme);
    let check = || {
        browser.run(&axe);
        let run = "const done = arguments[arguments.length - 1]; axe.run().then(done, (error) => done(String(error)));";
        let found = browser.run_async(run);
        let violations = found["violations"].as_array().unwrap_or_else(|| panic!("axe ran: {found}"));
        assert!(violations.is_empty(), "{violations:#?}");
        assert!(!found["passes"].as_array().unwrap().is_empty());
    };
    browser.reads(&HEALTHY);
    check();
    assert!(!site.tidegate.reload_text("broken"));
    site.vpc.iter().for_each(Upstream::go_silent);
    browser.reads(&["Clients do not get the answers they should", "Last reload "]);
    check();
}
