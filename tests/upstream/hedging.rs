//! Hedges: soon enough to hide a lost datagram, and within their budget.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tidegate::{
    clock::Moment,
    upstream::{Alarm, Exchanged, Group, HealthState, Marks, OwnAddresses, TierMember, UpstreamClient},
};

use crate::{
    address, ask, client, is, on_a_worker, probe, query,
    script::{ONE, Says, Script, TWO, Tcp, UdpException},
    server, spec,
    support::PATIENCE,
    tcp, udp, until,
};

/// Later than the usual tail of a server on loopback, and well before the limit of 20 ms.
const SLOW: Duration = Duration::from_millis(12);

/// Servers in a first tier of two, and perhaps a second of one; the first is asked first.
struct Site {
    scripts: Vec<Script>,
    group: Arc<Group>,
    alarm: Arc<Alarm>,
    client: Rc<UpstreamClient>,
}

impl Site {
    async fn ask(&self, name: &str) -> Exchanged {
        ask(&self.client, &self.group, name).await.expect("an answer")
    }

    /// Gives up long before the limit of a try.
    async fn ask_briefly(&self, name: &str) {
        let now = Moment::now();
        let deadline = now + Duration::from_millis(15);
        let asked = self.client.exchange(&self.group, &Marks::default(), &query(name), now, deadline).await;
        assert!(asked.is_err());
    }

    /// Lost queries, over all servers.
    fn lost(&self) -> usize {
        self.scripts.iter().map(Script::lost).sum()
    }
}

/// Runs a test with servers whose round-trip times in the first tier are known. The budget earns nothing, so there are
/// twenty hedges in all.
fn at_a_site(servers: usize, hedge_budget: Option<f64>, test: impl AsyncFnOnce(&Site)) {
    at_a_site_over(udp, servers, hedge_budget, test);
}

fn at_a_site_over(
    transport: fn(SocketAddr) -> TierMember,
    servers: usize,
    hedge_budget: Option<f64>,
    test: impl AsyncFnOnce(&Site),
) {
    let says = [Says::Address(ONE), Says::Address(TWO), Says::Address(TWO)];
    let scripts: Vec<_> = says.into_iter().take(servers).map(Script::new).collect();
    let entries: Vec<_> = scripts.iter().map(|script| transport(script.address)).collect();
    let tiers: Vec<_> = entries.chunks(2).collect();
    let mut spec = spec(&tiers);
    spec.limits.hedge_budget = hedge_budget;
    let alarm = Arc::new(Alarm::new());
    let group = Arc::new(Group::build(&spec, &OwnAddresses::default(), &alarm));
    let site = Site { scripts, group, alarm, client: client() };
    on_a_worker(async {
        let probes = probe(&site.group, &site.alarm);
        until("all up", || site.group.servers().all(|server| is(server, HealthState::Up))).await;
        drop(probes);
        for at in 0..40 {
            if at == 20 {
                server(&site.group, 0).drain();
            }
            site.ask(&format!("warm{at}.example")).await;
        }
        server(&site.group, 0).undrain();
        test(&site).await;
    });
}

#[test]
fn a_hedge_answers_before_the_limit() {
    at_a_site(2, Some(0.0), async |site| {
        site.scripts[0].except_names("slow", UdpException::Delays(SLOW));
        for at in 0..100 {
            let exchanged = site.ask(&format!("slow{at}.example")).await;
            if site.group.hedge_wins() > 0 {
                assert_eq!((address(&exchanged), site.group.hedges() > 0), (TWO, true));
                return;
            }
            sound(site, at).await;
        }
        panic!("no hedge in a hundred queries");
    });
}

#[test]
fn queries_over_streams_are_hedged_too() {
    at_a_site_over(tcp, 2, Some(0.0), async |site| {
        for at in 0..20 {
            site.scripts[0].say_tcp(Tcp::Dead);
            let exchanged = site.ask(&format!("n{at}.example")).await;
            assert_eq!(address(&exchanged), TWO);
            if site.group.hedge_wins() > 0 {
                return;
            }
            site.scripts[0].say_tcp(Tcp::Says(Says::Address(ONE)));
            let probes = probe(&site.group, &site.alarm);
            until("it is up again", || is(server(&site.group, 0), HealthState::Up)).await;
            drop(probes);
        }
        panic!("no hedge in twenty queries");
    });
}

#[test]
fn without_a_budget_nothing_is_hedged() {
    at_a_site(2, None, async |site| {
        site.scripts[0].except_names("slow", UdpException::Delays(SLOW));
        let start = Moment::now();
        site.ask("slow.example").await;
        assert!(Moment::now().since(start) >= SLOW);
        assert_eq!(site.group.hedges(), 0);
    });
}

#[test]
fn hedges_that_were_not_needed_keep_to_their_budget() {
    at_a_site(2, Some(0.0), async |site| {
        site.scripts[0].except_names("slow", UdpException::Delays(SLOW));
        for at in 0..80 {
            site.ask(&format!("slow{at}.example")).await;
            // The one is usually fast.
            for at in at * 6..(at + 1) * 6 {
                sound(site, at).await;
            }
        }
        // The burst, and some answers that a busy machine made later than the limit.
        assert!((20..=40).contains(&site.group.hedges()), "{}", site.group.hedges());
    });
}

#[test]
fn hedges_in_place_of_retries_cost_nothing() {
    at_a_site(2, Some(0.0), async |site| {
        site.scripts[0].except_names("lost", UdpException::Loses);
        // The budget has twenty. While a busy machine answers later than the limit of a try, there is no time for a hedge
        // before it.
        let (start, mut at) = (Moment::now(), 0);
        while site.group.hedges() <= 25 {
            assert!(Moment::now().since(start) < 6 * PATIENCE, "{} hedges", site.group.hedges());
            assert_eq!(address(&site.ask(&format!("lost{at}.example")).await), TWO);
            sound(site, at).await;
            at += 1;
        }
    });
}

#[test]
fn a_server_that_is_silent_behind_hedges_is_found() {
    at_a_site(2, Some(1.0), async |site| {
        site.scripts[0].say(Says::Nothing);
        for at in 0..500 {
            assert_eq!(address(&site.ask(&format!("n{at}.example")).await), TWO);
            if !is(server(&site.group, 0), HealthState::Up) {
                return;
            }
        }
        panic!("nobody noticed");
    });
}

#[test]
fn no_hedge_goes_to_a_server_that_is_asked_already() {
    at_a_site(2, Some(1.0), async |site| {
        site.scripts.iter().for_each(|script| script.except_names("lost", UdpException::Loses));
        let (mut at, mut judged) = (0, 0);
        while judged < 10 {
            at += 1;
            let (before, name, start) = (site.lost(), format!("lost{at}.example"), Moment::now());
            let others = async {
                for number in 0.. {
                    sound(site, at * 1000 + number).await;
                }
            };
            tokio::select! {
                () = site.ask_briefly(&name) => {}
                () = others => {}
            }
            // What was sent has arrived before what is sent now.
            sound(site, at * 1000 + 999).await;
            // On a busy machine a try may reach its limit of 20 ms: then the next one is due.
            if Moment::now().since(start) < Duration::from_millis(20) {
                judged += 1;
                assert!(site.lost() - before <= 2, "a name that is slow at its origin looks like this one");
            }
            assert!(at < 5000, "{judged} of {at} in time");
        }
    });
}

#[test]
fn the_last_try_is_kept_while_the_path_is_silent() {
    at_a_site(2, Some(1.0), async |site| {
        site.scripts.iter().for_each(|script| script.say(Says::Nothing));
        for at in 0..5000 {
            let (before, start) = (queries(site), Moment::now());
            site.ask_briefly(&format!("n{at}.example")).await;
            // Past the limit of 20 ms, on a busy machine, the next try is due.
            if Moment::now().since(start) < Duration::from_millis(20) {
                assert!(queries(site) - before <= 2);
                return;
            }
        }
        panic!("never in time");
    });
}

#[test]
fn the_last_try_is_kept_for_another_tier() {
    at_a_site(3, Some(1.0), async |site| {
        site.scripts[..2].iter().for_each(|script| script.except_names("lost", UdpException::Loses));
        let others = async {
            for at in 0.. {
                sound(site, at).await;
            }
        };
        let exchanged = tokio::select! {
            exchanged = site.ask("lost.example") => exchanged,
            () = others => return,
        };
        assert_eq!(exchanged.server.label(), server(&site.group, 2).label());
        assert_eq!(exchanged.tries, 3);
    });
}

/// Sends a query that is answered, which shows that the path works.
async fn sound(site: &Site, at: usize) {
    site.ask(&format!("sound{at}.example")).await;
}

fn queries(site: &Site) -> usize {
    site.scripts.iter().map(Script::queries).sum()
}
