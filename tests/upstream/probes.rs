//! What probes decide about a server, and when they are sent.

use std::{sync::Arc, time::Duration};

use rstest::rstest;
use tidegate::{
    clock::Moment,
    upstream::{Availability, ExchangeError, Group, HealthState, OwnAddresses, health::ProbeError, prober},
};

use crate::{
    address, ask, ask_now, by_default, client, is, on_a_worker, probe,
    script::{ONE, Says, Script, TWO, UdpException},
    server, spec, udp, until, watched,
};

#[test]
fn public_answers_to_a_probe_with_expect_are_distinguished() {
    let script = Script::new(Says::Address("52.1.2.3".parse().unwrap()));
    let mut spec = spec(&[&[udp(script.address)]]);
    spec.health.expect = vec!["10.0.0.0/8".parse().unwrap()];
    let (group, alarm) = watched(&spec);
    on_a_worker(async {
        let _probes = probe(&group, &alarm);
        let server = server(&group, 0);
        until("down", || is(server, HealthState::Down)).await;
        assert_eq!(server.last_probe_error(), Some(ProbeError::Public));
        assert!(group.is_down());
        let failure = ask(&client(), &group, "a.example").await.unwrap_err();
        let ExchangeError::AllFailed(reasons) = failure else { panic!("{failure}") };
        assert_eq!(reasons.availability, Availability::AllDown, "not even a trial may bring a public answer");
        script.say(Says::Address(ONE));
        until("up", || is(server, HealthState::Up)).await;
    });
}

/// Servers that answer everything else.
#[rstest]
#[case::refuses_it(UdpException::Says(Says::Rcode(5)))]
#[case::fails_it(UdpException::Says(Says::Rcode(2)))]
#[case::does_not_implement_it(UdpException::Says(Says::Rcode(4)))]
#[case::drops_it(UdpException::Loses)]
fn a_default_probe_takes_no_server_down_that_answers_traffic(#[case] exception: UdpException) {
    let script = Script::new(Says::Address(ONE));
    script.except_names("probe", exception);
    let mut spec = by_default(&[&[udp(script.address)]]);
    (spec.health.interval, spec.limits.timeout) = (Duration::from_millis(50), Duration::from_millis(200));
    let (group, alarm) = watched(&spec);
    on_a_worker(async {
        let client = client();
        ask(&client, &group, "first.example").await.unwrap();
        let _probes = probe(&group, &alarm);
        // Quiet for many rounds of probes.
        let before = script.probes();
        until("ten probes", || script.probes() >= before + 10).await;
        assert_eq!(server(&group, 0).transitions(HealthState::Down), 0);
        for number in 0..20 {
            assert_eq!(address(&ask(&client, &group, &format!("n{number}.example")).await.unwrap()), ONE);
        }
    });
}

#[test]
fn a_server_that_gives_errors_to_probes_and_traffic_goes_down() {
    let script = Script::new(Says::Rcode(5));
    let (group, alarm) = watched(&by_default(&[&[udp(script.address)]]));
    on_a_worker(async {
        let client = client();
        for number in 0..3 {
            ask(&client, &group, &format!("n{number}.example")).await.unwrap_err();
        }
        let _probes = probe(&group, &alarm);
        until("down", || is(server(&group, 0), HealthState::Down)).await;
        assert_eq!(server(&group, 0).last_probe_error(), Some(ProbeError::Rcode));
    });
}

#[test]
fn one_broken_name_and_a_refused_default_probe_take_no_server_down() {
    let script = Script::new(Says::Rcode(5));
    let (group, alarm) = watched(&by_default(&[&[udp(script.address)]]));
    on_a_worker(async {
        let client = client();
        let _probes = probe(&group, &alarm);
        until("ten probes", || {
            ask_now(&client, &group);
            script.queries() > 200
        })
        .await;
        assert_eq!(server(&group, 0).transitions(HealthState::Down), 0);
    });
}

#[test]
fn a_configured_probe_stands_whatever_traffic_says() {
    let script = Script::new(Says::Address(ONE));
    script.except_names("probe", UdpException::Says(Says::Rcode(5)));
    let (group, alarm) = watched(&spec(&[&[udp(script.address)]]));
    on_a_worker(async {
        let client = client();
        let _probes = probe(&group, &alarm);
        until("down", || is(server(&group, 0), HealthState::Down)).await;
        for number in 0..10 {
            assert_eq!(address(&ask(&client, &group, &format!("n{number}.example")).await.unwrap()), ONE);
            assert!(is(server(&group, 0), HealthState::Down));
        }
    });
}

#[test]
fn a_primary_that_refuses_the_default_probe_is_used_though_there_is_a_backup() {
    let scripts = [Script::new(Says::Address(ONE)), Script::new(Says::Address(TWO))];
    scripts[0].except_names("probe", UdpException::Says(Says::Rcode(5)));
    let mut spec = by_default(&[&[udp(scripts[0].address)], &[udp(scripts[1].address)]]);
    spec.health.interval = Duration::from_millis(50);
    let (group, alarm) = watched(&spec);
    on_a_worker(async {
        let client = client();
        let _probes = probe(&group, &alarm);
        until("both up", || group.servers().all(|server| is(server, HealthState::Up))).await;
        let before = scripts[0].probes();
        until("ten probes", || scripts[0].probes() >= before + 10).await;
        for number in 0..20 {
            assert_eq!(address(&ask(&client, &group, &format!("n{number}.example")).await.unwrap()), ONE);
        }
    });
}

#[test]
fn busy_servers_are_not_probed() {
    let script = Script::new(Says::Address(ONE));
    let mut spec = spec(&[&[udp(script.address)]]);
    spec.health.interval = Duration::from_millis(60);
    spec.limits.attempts = 1;
    let (group, alarm) = watched(&spec);
    on_a_worker(async {
        let _probes = probe(&group, &alarm);
        until("up", || is(server(&group, 0), HealthState::Up)).await;
        let client = client();
        let before = script.queries();
        let start = Moment::now();
        let mut asked = 0;
        while Moment::now().since(start) < Duration::from_millis(500) {
            ask(&client, &group, &format!("n{asked}.example")).await.unwrap();
            asked += 1;
        }
        // What a busy machine makes late is a doubt, and that asks for a probe or two.
        let doubts = usize::try_from(server(&group, 0).transitions(HealthState::Suspect)).unwrap();
        let probes = script.queries() - before - asked;
        assert!(probes <= 2 * doubts, "{probes} probes, {doubts} doubts");
    });
}

#[test]
fn the_prober_follows_a_reload() {
    let scripts = [Script::new(Says::Address(ONE)), Script::new(Says::Address(TWO))];
    let (first, alarm) = watched(&spec(&[&[udp(scripts[0].address)]]));
    let second = Arc::new(Group::build(&spec(&[&[udp(scripts[1].address)]]), &OwnAddresses::default(), &alarm));
    on_a_worker(async {
        let probes: tokio::sync::watch::Sender<prober::Targets> = probe(&first, &alarm);
        until("first up", || is(server(&first, 0), HealthState::Up)).await;
        probes.send(vec![Arc::clone(&second)]).unwrap();
        until("second up", || is(server(&second, 0), HealthState::Up)).await;
    });
}
