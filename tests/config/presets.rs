//! The presets against every endpoint host name that AWS has, Region by Region (`config/presets/generate.py`).

use std::collections::HashMap;

use tidegate::{
    config::{PUBLIC_ONLY, preset},
    wire::Name,
};

const ENDPOINTS: &str = include_str!("../data/endpoints.txt");
/// Services whose rules in AWS's data name the commercial suffix in every partition.
const COMMERCIAL_EVERYWHERE: &[&str] = &["agent-registry", "agent-registry-control", "osm", "pricingplanmanager"];

struct Partition {
    preset: &'static str,
    suffix: &'static str,
    dual_stack: &'static str,
    regions: Vec<&'static str>,
}

/// Every host name, with the preset of its partition.
fn hosts() -> Vec<(&'static str, String)> {
    let mut partitions: HashMap<&str, Partition> = HashMap::new();
    let mut within: Vec<&str> = Vec::new();
    let mut hosts = Vec::new();
    for line in ENDPOINTS.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&'static str> = line.split(' ').collect();
        match words[..] {
            ["partition", name, suffix, dual_stack, regions] => {
                let preset = if name == "aws-us-gov" { "aws" } else { name };
                let regions = regions.split(',').collect();
                partitions.insert(name, Partition { preset, suffix, dual_stack, regions });
            }
            ["in", names] => within = names.split(',').collect(),
            [template] => {
                for partition in within.iter().map(|name| &partitions[name]) {
                    hosts.extend(partition.expand(template).into_iter().map(|host| (partition.preset, host)));
                }
            }
            _ => panic!("{line}"),
        }
    }
    hosts
}

impl Partition {
    fn expand(&self, template: &str) -> Vec<String> {
        let whole = match template.rsplit_once('.') {
            Some((rest, "S")) => format!("{rest}.{}", self.suffix),
            Some((rest, "D")) => format!("{rest}.{}", self.dual_stack),
            _ => template.to_owned(),
        };
        let dotted = format!(".{whole}");
        if !dotted.contains(".R.") {
            return vec![whole];
        }
        self.regions.iter().map(|region| dotted.replace(".R.", &format!(".{region}."))[1..].to_owned()).collect()
    }
}

fn is_within(name: &Name, domains: impl IntoIterator<Item = &'static str>) -> bool {
    domains.into_iter().any(|domain| name.is_within(&domain.parse().expect("presets hold domains")))
}

#[test]
fn every_endpoint_host_name_is_of_its_partitions_preset_or_public_only() {
    let hosts = hosts();
    assert!(hosts.len() > 50_000, "{} host names", hosts.len());
    let families = |name: &str| preset(name).unwrap().families.iter().map(|family| family.domain);
    let mut strays = Vec::new();
    for (own, host) in &hosts {
        let name: Name = host.parse().unwrap();
        let is_public = is_within(&name, PUBLIC_ONLY.iter().map(|family| family.domain));
        let commercial = host.split('.').next().is_some_and(|label| COMMERCIAL_EVERYWHERE.contains(&label));
        let is_own = is_within(&name, families(own)) || commercial && is_within(&name, families("aws"));
        if is_own == is_public {
            strays.push(format!("{host} (preset:{own}): preset {is_own}, public only {is_public}"));
        }
    }
    assert!(strays.is_empty(), "{} strays, such as {:?}", strays.len(), &strays[..strays.len().min(10)]);
}

#[test]
fn public_only_domains_and_presets_do_not_overlap() {
    let families: Vec<&str> =
        tidegate::config::PRESETS.iter().flat_map(|preset| preset.families).map(|family| family.domain).collect();
    for public in PUBLIC_ONLY {
        let public_name: Name = public.domain.parse().unwrap();
        assert!(!is_within(&public_name, families.iter().copied()), "{}", public.domain);
        for family in &families {
            assert!(!family.parse::<Name>().unwrap().is_within(&public_name), "{family} below {}", public.domain);
        }
    }
}

#[test]
fn sign_in_is_the_only_endpoint_that_is_public_only() {
    for (_, host) in hosts() {
        let name: Name = host.parse().unwrap();
        if is_within(&name, PUBLIC_ONLY.iter().map(|family| family.domain)) {
            assert!(host.contains("signin"), "{host}");
        }
    }
}
