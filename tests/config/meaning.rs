//! What valid files mean.

use std::time::Duration;

use tidegate::config::{ServerAddress, WhenDown};

use crate::{BASE, plan};

#[test]
fn presets_and_reverse_networks_become_zones() {
    let text = "[upstream.a]\nservers = [\"10.1.1.1\"]\n[[forward]]\nzones = [\"preset:aws\", \
        \"reverse:10.20.0.0/14\"]\nto = \"a\"";
    let zones: Vec<String> = plan(text).live.rules[0].zones.iter().map(ToString::to_string).collect();
    assert_eq!(
        zones,
        [
            "amazonaws.com.",
            "api.aws.",
            "on.aws.",
            "sagemaker.aws.",
            "compute.internal.",
            "ec2.internal.",
            "compute-1.internal.",
            "20.10.in-addr.arpa.",
            "21.10.in-addr.arpa.",
            "22.10.in-addr.arpa.",
            "23.10.in-addr.arpa.",
        ]
    );
}

#[test]
fn the_probe_is_what_is_written_else_a_zone_of_a_rule_else_the_root() {
    let servers = "servers = [\"10.1.1.1\"]\n";
    let text = format!(
        "[upstream.a]\n{servers}[upstream.b]\n{servers}[upstream.c]\n{servers}health.probe = \"x.example AAAA\"\n\
         [[forward]]\nzones = [\"a.example\", \"b.example\"]\nto = \"a\"\n\
         [[forward]]\nzones = [\"c.example\", \".\"]\nto = \"b\"\n"
    );
    let probes: Vec<String> = plan(&text).live.groups.iter().map(|group| group.health.probe.to_string()).collect();
    assert_eq!(probes, ["a.example. SOA", ". NS", "x.example. AAAA"]);
}

#[test]
fn a_server_may_have_a_path_of_its_own() {
    let text = "[upstream.a]\nservers = [\"10.1.1.1\"]\nbackup = [[{ server = \"10.1.1.1\", device = \"vpn0\" \
        }]]\nmark = 7\n";
    let tiers = &plan(text).live.groups[0].tiers;
    assert_eq!((tiers[0][0].path.mark, tiers[0][0].path.device.as_deref()), (7, None));
    assert_eq!((tiers[1][0].path.mark, tiers[1][0].path.device.as_deref()), (7, Some("vpn0")));
}

#[test]
fn rules_without_a_name_are_told_apart() {
    let text = "[upstream.a]\nservers = [\"10.1.1.1\"]\n\
        [[forward]]\nzones = [\"corp.example.\"]\nto = \"a\"\n\
        [[forward]]\nzones = [\"corp.example\"]\nclients = [\"10.9.0.0/16\"]\nto = \"a\"\n\
        [[forward]]\nzones = [\".\"]\nto = \"a\"\nwhen_down = \"fail\"\n";
    let plan = plan(text);
    let names: Vec<&str> = plan.live.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["corp.example", "corp.example@10.9.0.0/16", "."]);
    assert_eq!(plan.live.rules[2].when_down, WhenDown::Fail);
}

#[test]
fn a_rule_has_the_caches_negative_cap_unless_it_has_its_own() {
    let text = format!(
        "{BASE}negative_ttl = \"30s\"\n[[forward]]\nzones = [\"a.example\"]\nto = \"vpc\"\n[cache]\n\
         negative_ttl = \"1m\"\n"
    );
    let caps: Vec<Duration> = plan(&text).live.rules.iter().map(|rule| rule.negative_ttl).collect();
    assert_eq!(caps, [Duration::from_secs(30), Duration::from_secs(60)]);
}

#[test]
fn the_routing_table_shows_zones_clients_servers_and_guard() {
    let text = "[upstream.vpc]\nservers = [\"10.20.1.10\"]\nbackup = [[\"10.60.1.10:5353\"]]\n\
        [[forward]]\nname = \"aws\"\nzones = [\"amazonaws.com\"]\nto = \"vpc\"\n\
        private = [\"10.20.0.0/16\"]\non_public = \"refuse\"\n\
        [[forward]]\nname = \"rest\"\nzones = [\".\", \"reverse:private\"]\n\
        to = \"vpc\"\nwhen_down = \"fail\"\n\
        [[local]]\nzone = \"edge.example\"\nrecords = [\"@ A 10.1.1.1\"]\n";
    let table = plan(text).routing_table();
    let expected = "\
ZONE                        CLIENTS  RULE  GOES TO         SERVERS                           GUARD
.                           all      rest  vpc, else fail  10.20.1.10; then 10.60.1.10:5353  -
amazonaws.com               all      aws   vpc             10.20.1.10; then 10.60.1.10:5353  refuse outside 10.20.0.0/16
edge.example                all      -     answered here   1 record                          -
reverse:private (88 zones)  all      rest  vpc, else fail  10.20.1.10; then 10.60.1.10:5353  -

";
    assert!(table.starts_with(expected), "{table}");
}

#[test]
fn changes_that_need_a_restart_are_reported_by_key() {
    let other = format!("{BASE}[server]\nlisten = [\"127.0.0.1:5353\"]\ndeadline = \"2s\"\n[cache]\nsize = \"1GiB\"\n");
    assert_eq!(plan(BASE).boot.differences(&plan(&other).boot), ["server.listen", "cache.size"]);
    assert_eq!(plan(BASE).boot.differences(&plan(BASE).boot), [""; 0]);
}

#[test]
fn words_stand_for_networks_and_an_address_for_itself() {
    let text = format!("[server]\nallow = [\"loopback\", \"10.1.1.1\"]\ndeny = [\"any\"]\n{BASE}");
    let access = plan(&text).live.access;
    let written = |networks: &[ipnet::IpNet]| networks.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(written(&access.allow), ["127.0.0.0/8", "::1/128", "10.1.1.1/32"]);
    assert_eq!(written(&access.deny), ["0.0.0.0/0", "::/0"]);
}

#[test]
fn a_resolv_conf_is_found_beside_the_file_that_names_it() {
    let text = BASE.replace("\"10.20.1.10\"", "\"system\", \"system:/run/a.conf\", \"system:b.conf\"");
    let plan = tidegate::config::Plan::from_text("/etc/tidegate/t.toml", &text).unwrap();
    let paths: Vec<Option<&str>> = plan.live.groups[0].tiers[0]
        .iter()
        .map(|server| match &server.address {
            ServerAddress::System { path } => path.as_ref().and_then(|path| path.to_str()),
            ServerAddress::Fixed(_) | ServerAddress::Named(_) => None,
        })
        .collect();
    assert_eq!(paths, [None, Some("/run/a.conf"), Some("/etc/tidegate/b.conf")]);
}
