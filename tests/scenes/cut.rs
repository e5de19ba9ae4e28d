//! Two tiers in two networks, as over Direct Connect and a VPN; the path to the first is cut, restored, or loses
//! datagrams.

use std::{
    fmt::Write as _,
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use crate::{
    soak_seconds,
    support::{
        client::Client,
        config::Config,
        eventually,
        namespace::{self, Network, UpstreamAway, command},
        now,
        query::{Query, rtype},
        records::Reply,
        tidegate::Tidegate,
    },
};
use hickory_proto::op::ResponseCode;

const FIRST: &str = "10.0.0.1";
const SECOND: &str = "10.0.0.2";
/// Where queries come from, as seen by each tier.
const SOURCES: [&str; 2] = ["10.91.0.7", "10.92.0.7"];
const FAIL_BACK: Duration = Duration::from_secs(2);
/// By then a dead tier is left: a second is usual, the rest is for a busy machine.
const TAKEN_OVER: Duration = Duration::from_secs(8);
/// One probe of a server that is down: its interval, and the time-out of the one that the mend came too late for.
const PROBE: Duration = Duration::from_millis(200 + 1000);

/// A daemon between two networks: two servers in the first, one in the second.
struct Site {
    tidegate: Tidegate,
    first: [UpstreamAway; 2],
    second: UpstreamAway,
    networks: [Network; 2],
}

impl Site {
    fn start() -> Self {
        let networks = [
            Network::behind("direct", &["10.91.0.1/24", "10.91.0.7/24"], &["10.91.0.2/24", "10.91.0.3/24"]),
            Network::behind("vpn", &["10.92.0.1/24", "10.92.0.7/24"], &["10.92.0.2/24"]),
        ];
        let first = [networks[0].upstream("10.91.0.2:0"), networks[0].upstream("10.91.0.3:0")];
        let second = networks[1].upstream("10.92.0.2:0");
        first.iter().for_each(|server| _ = server.on_type(rtype::A, Reply::a(FIRST)));
        second.on_type(rtype::A, Reply::a(SECOND));
        // To the routing table the second tier is behind the first one's link; the group's `device` knows better.
        command(&["ip", "route", "add", "10.92.0.2/32", "dev", "direct"]);
        let [source, other_source] = SOURCES;
        let tiers = format!(
            "[upstream.vpc]\nservers = [\"{}\", \"{}\"]\n\
             backup = [[{{ server = \"{}\", source = \"{other_source}\", device = \"vpn\" }}]]\n\
             source = \"{source}\"\ndevice = \"direct\"\nfail_back = \"{}s\"\n\
             [upstream.vpc.health]\ninterval_down = \"200ms\"",
            first[0].address,
            first[1].address,
            second.address,
            FAIL_BACK.as_secs(),
        );
        let config = Config::new().raw(&tiers).forward("everything", &["."], "vpc", "");
        let tidegate = Tidegate::start(&config);
        // A path of its own is part of a server's name.
        let second_name = format!("{},source={other_source},device=vpn", second.address);
        for server in [first[0].address.to_string(), first[1].address.to_string(), second_name] {
            let up = [("server", server.as_str()), ("to", "up")];
            tidegate.await_metric("tidegate_upstream_transitions_total", &up, 1.0);
        }
        Self { tidegate, first, second, networks }
    }

    fn tier(&self) -> f64 {
        self.tidegate.metric("tidegate_upstream_tier", &[("group", "vpc")])
    }

    /// How often the tier changed: to the second, and back.
    fn changes(&self) -> [usize; 2] {
        ["WARN", "INFO"].map(|level| self.tidegate.logged(level, " now uses tier ").len())
    }

    /// Waits until this tier is in use, and gives the time since `start`.
    #[track_caller]
    fn await_tier(&self, tier: f64, start: Instant) -> Duration {
        eventually(&format!("tier {tier}"), || (self.tier() - tier).abs() < 0.5);
        start.elapsed()
    }
}

/// Asks new names from several clients for as long as `during` takes. Each must get an address; gives what each got.
fn under_load(tidegate: &Tidegate, during: impl FnOnce()) -> Vec<Asked> {
    let asked = load(tidegate, during);
    asked.iter().for_each(|one| assert_eq!(one.rcode, ResponseCode::NoError, "{:?} after {:?}", one.took, one.start));
    asked
}

/// Like [`under_load`], if some queries may get no answer.
fn load(tidegate: &Tidegate, during: impl FnOnce()) -> Vec<Asked> {
    load_from(4, tidegate, during)
}

/// Load from this many clients, each with up to fifty queries a second.
pub(crate) fn load_from(clients: usize, tidegate: &Tidegate, during: impl FnOnce()) -> Vec<Asked> {
    let (is_over, number) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ask = || {
        let client = Client::new(tidegate.address());
        let mut asked = Vec::new();
        while !is_over.load(SeqCst) {
            let start = now();
            let answer = client.ask(&Query::a(&format!("n{}.example.", number.fetch_add(1, SeqCst))).edns());
            let took = start.elapsed();
            asked.push(Asked { start, took, rcode: answer.rcode(), address: answer.address_texts().concat() });
            thread::sleep(Duration::from_millis(20));
        }
        asked
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(ask)).collect();
        let guard = Over(&is_over);
        during();
        drop(guard);
        clients.into_iter().flat_map(|client| client.join().expect("every question is answered")).collect()
    })
}

pub(crate) struct Asked {
    pub(crate) start: Instant,
    pub(crate) took: Duration,
    pub(crate) rcode: ResponseCode,
    pub(crate) address: String,
}

/// Ends the clients, also when an assertion fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// How the first tier is cut off.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Our end of the link goes down: its routes are gone.
    OurEnd,
    /// The other end goes down: no carrier.
    FarEnd,
    /// Every datagram is dropped at the far end, going and coming, as behind a dead VPN: no error, nothing at all.
    Silence,
    /// The host's own firewall lets nothing leave, which is an error of each system call.
    Firewall,
}

impl Cut {
    fn apply(self, network: &Network) {
        let drop_all = |hook: &str, device: &str| {
            format!("table inet path {{ chain {hook} {{ type filter hook {hook} priority 0; {device} drop; }}; }};")
        };
        match self {
            Self::OurEnd => command(&["ip", "link", "set", "direct", "down"]),
            Self::FarEnd => network.command(&["ip", "link", "set", "far", "down"]),
            Self::Silence => {
                network.command(&["nft", &(drop_all("input", "iifname far") + &drop_all("output", "oifname far"))]);
            }
            Self::Firewall => command(&["nft", &drop_all("output", "oifname direct")]),
        }
    }

    fn mend(self, network: &Network) {
        match self {
            Self::OurEnd => command(&["ip", "link", "set", "direct", "up"]),
            Self::FarEnd => network.command(&["ip", "link", "set", "far", "up"]),
            Self::Silence => network.command(&["nft", "delete", "table", "inet", "path"]),
            Self::Firewall => command(&["nft", "delete", "table", "inet", "path"]),
        }
    }
}

#[test]
fn clients_do_not_notice_a_link_that_is_down_here() {
    not_felt(Cut::OurEnd, "cut::clients_do_not_notice_a_link_that_is_down_here");
}

#[test]
fn clients_do_not_notice_a_link_that_is_down_at_the_far_end() {
    not_felt(Cut::FarEnd, "cut::clients_do_not_notice_a_link_that_is_down_at_the_far_end");
}

#[test]
fn clients_do_not_notice_a_path_that_goes_silent() {
    not_felt(Cut::Silence, "cut::clients_do_not_notice_a_path_that_goes_silent");
}

#[test]
fn clients_do_not_notice_a_link_that_our_own_host_blocks() {
    not_felt(Cut::Firewall, "cut::clients_do_not_notice_a_link_that_our_own_host_blocks");
}

/// The other tier serves at once, and the better one again when it has been well for a while.
#[expect(clippy::print_stdout, reason = "figures for who asks with --nocapture")]
fn not_felt(cut: Cut, test: &str) {
    namespace::inside(test, || {
        let site = Site::start();
        let mut figures = String::new();
        let mut cut_at = now();
        let mut mended_at = now();
        let asked = under_load(&site.tidegate, || {
            // The faster of the two gets most of them.
            let asked = || site.first.iter().map(|server| server.all_seen().len()).sum::<usize>();
            eventually("queries in the first tier", || asked() > 40);
            assert_eq!(site.tier(), 0.0);
            cut_at = now();
            cut.apply(&site.networks[0]);
            let away = site.await_tier(1.0, cut_at);
            mended_at = now();
            cut.mend(&site.networks[0]);
            let back = site.await_tier(0.0, mended_at);
            write!(figures, "second tier after {away:?}, back after {back:?}").expect("writing to a string");
            // Steady for so long, and the two probes that show it; the rest is for a busy machine.
            assert!((FAIL_BACK..FAIL_BACK + 6 * PROBE).contains(&back), "{figures}");
            assert!(away < TAKEN_OVER, "{figures}");
            // And it stays.
            thread::sleep(Duration::from_secs(1));
        });
        assert_eq!(site.changes(), [1, 1]);
        let slowest = |from: Instant| {
            let since = asked.iter().filter(|asked| asked.start >= from);
            since.map(|asked| asked.took).max().unwrap_or_default()
        };
        let by_second = asked.iter().filter(|asked| asked.start > cut_at && asked.address == SECOND);
        let first_by_second = by_second.map(|asked| asked.start + asked.took).min().expect("the second tier answers");
        println!(
            "{cut:?}: {} questions, none failed; slowest {:?} after the cut, {:?} after the mend; {figures}; first answer \
             of the second tier after {:?}",
            asked.len(),
            slowest(cut_at),
            slowest(mended_at),
            first_by_second - cut_at
        );
        assert!(slowest(cut_at) < Duration::from_secs(2), "the deadline is at 3.5 s, stub resolvers wait 5 s");
        comes_from(&site.first[0], SOURCES[0]);
        comes_from(&site.first[1], SOURCES[0]);
        comes_from(&site.second, SOURCES[1]);
    });
}

/// Every query that a server saw came from this address.
#[track_caller]
fn comes_from(server: &UpstreamAway, source: &str) {
    let source: IpAddr = source.parse().expect("an address");
    let seen = server.all_seen();
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.from.ip() == source));
}

/// `TIDEGATE_SOAK_SECONDS=60` for the minute that is promised.
#[test]
#[expect(clippy::print_stdout, reason = "figures for who asks with --nocapture")]
fn loss_of_30_percent_each_way_is_no_reason_to_go_back_and_forth() {
    namespace::inside("cut::loss_of_30_percent_each_way_is_no_reason_to_go_back_and_forth", || {
        let site = Site::start();
        let loss = |device| {
            let drop = format!("iifname {device} numgen random mod 100 < 30 counter drop");
            format!("table inet path {{ chain in {{ type filter hook input priority 0; {drop}; }}; }}")
        };
        site.networks[0].command(&["nft", &loss("far")]);
        command(&["nft", &loss("direct")]);
        let asked = under_load(&site.tidegate, || thread::sleep(Duration::from_secs(soak_seconds())));
        let [away, back] = site.changes();
        let mut took: Vec<Duration> = asked.iter().map(|asked| asked.took).collect();
        took.sort_unstable();
        let quantile = |part: usize| took[(took.len() - 1) * part / 1000];
        println!(
            "30 % loss each way: {} questions, none failed; p50 {:?}, p99 {:?}, p99.9 {:?}; tier changes {away} and {back}",
            took.len(),
            quantile(500),
            quantile(990),
            quantile(999)
        );
        assert!(away <= 1 && back <= 1, "{away} times to the second tier, {back} times back");
    });
}
