//! Finds the interface endpoint that would make an AWS name private.
//!
//! A service's name consists of its labels, its Region, and a suffix of the partition:
//! `api.ecr.eu-west-1.amazonaws.com`. With private DNS, an interface endpoint of the service in that Region covers the
//! name. The table of labels and services is generated from AWS's endpoint data (`config/presets/generate.py`), which
//! does not say in which Regions a service is available. A name with more labels after its Region (`*.elb`, `*.rds`) is
//! a resource with its own address, and no endpoint changes that.

use std::{collections::HashMap, sync::LazyLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PRESETS, PUBLIC_ONLY};
use crate::wire::Name;

/// How to make a name private that has public addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "service", rename_all = "kebab-case")]
pub enum Remedy {
    /// An interface endpoint for this service, with private DNS.
    Endpoint(String),
    /// Use the name with a Region in it: there is no endpoint for this global or legacy name.
    RegionalName(String),
    /// Nothing does: the name exists only in public.
    PublicOnly,
    /// Not known: it may be a resource with a public address of its own.
    Unknown,
}

/// Whether a name belongs to a family in some preset.
pub fn is_aws_name(name: &Name) -> bool {
    FAMILIES.iter().any(|family| name.is_within(family))
}

/// The remedy for this name.
pub fn remedy(name: &Name) -> Remedy {
    if PUBLIC.iter().any(|family| name.is_within(family)) {
        return Remedy::PublicOnly;
    }
    let text = name.to_string();
    let text = text.trim_end_matches('.');
    let Some((suffix, owner)) =
        SUFFIXES.iter().find(|(suffix, _)| text.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')))
    else {
        return Remedy::Unknown;
    };
    let labels: Vec<&str> = text[..text.len() - suffix.len() - 1].split('.').collect();
    let Some(at) = labels.iter().rposition(|label| is_region(label)) else { return global(&labels) };
    if at + 1 < labels.len() {
        return Remedy::Unknown;
    }
    if labels[..at].contains(&"dualstack") {
        return service(&without_dual_stack(&labels[..at]))
            .map_or(Remedy::Unknown, |service| Remedy::RegionalName(service.to_owned()));
    }
    let endpoint = |service: &str| Remedy::Endpoint(format!("{owner}.{}.{service}", labels[at]));
    service(&labels[..at]).map_or(Remedy::Unknown, endpoint)
}

/// The suffixes of service names, and the prefix of the partition's endpoint services.
const SUFFIXES: &[(&str, &str)] = &[
    ("amazonaws.com", "com.amazonaws"),
    ("api.aws", "com.amazonaws"),
    ("amazonaws.com.cn", "cn.com.amazonaws"),
    ("api.amazonwebservices.com.cn", "cn.com.amazonaws"),
    ("c2s.ic.gov", "gov.ic.c2s"),
    ("api.aws.ic.gov", "gov.ic.c2s"),
    ("sc2s.sgov.gov", "gov.sgov.sc2s"),
    ("api.aws.scloud", "gov.sgov.sc2s"),
    ("cloud.adc-e.uk", "uk.adc-e.cloud"),
    ("api.cloud-aws.adc-e.uk", "uk.adc-e.cloud"),
    ("csp.hci.ic.gov", "gov.ic.hci.csp"),
    ("api.aws.hci.ic.gov", "gov.ic.hci.csp"),
    ("amazonaws.eu", "eu.amazonaws"),
    ("api.amazonwebservices.eu", "eu.amazonaws"),
];

const TABLE: &str = include_str!("../../../config/presets/services.txt");

static SERVICES: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap_or((line, line))).collect()
});

static FAMILIES: LazyLock<Vec<Name>> = LazyLock::new(|| {
    let families = PRESETS.iter().flat_map(|preset| preset.families);
    families.filter_map(|family| family.domain.parse().ok()).collect()
});

static PUBLIC: LazyLock<Vec<Name>> =
    LazyLock::new(|| PUBLIC_ONLY.iter().filter_map(|family| family.domain.parse().ok()).collect());

/// The remedy for a name without Region; very few services have an endpoint for it.
fn global(labels: &[&str]) -> Remedy {
    let starred = std::iter::once("*").chain(labels.iter().copied().skip(1)).collect::<Vec<_>>().join(".");
    let own = [labels.join("."), starred].into_iter().find_map(|key| SERVICES.get(format!("={key}").as_str()));
    if let Some(service) = own {
        return Remedy::Endpoint((*service).to_owned());
    }
    // `s3-eu-west-1`: the Region is in the label of the service.
    let service_of =
        |label: &str| label.split_once('-').filter(|(_, region)| is_region(region)).map(|(own, _)| own.to_owned());
    let mut regional: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    if let Some(last) = regional.last_mut() {
        *last = service_of(last).unwrap_or_else(|| last.clone());
    }
    let regional: Vec<&str> = regional.iter().map(String::as_str).collect();
    service(&regional).map_or(Remedy::Unknown, |service| Remedy::RegionalName(service.to_owned()))
}

/// The service of the labels before a Region.
fn service(labels: &[&str]) -> Option<&'static str> {
    let exact = SERVICES.get(labels.join(".").as_str());
    let below = || {
        let keys = (1..labels.len()).map(|at| format!("*.{}", labels[at..].join(".")));
        keys.into_iter().find_map(|key| SERVICES.get(key.as_str()))
    };
    exact.or_else(below).copied()
}

fn without_dual_stack<'a>(labels: &[&'a str]) -> Vec<&'a str> {
    labels.iter().copied().filter(|label| *label != "dualstack").collect()
}

/// `eu-west-1`, `us-gov-east-1`, `eusc-de-east-1`.
fn is_region(label: &str) -> bool {
    let mut parts = label.split('-').rev();
    let number = parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let words: Vec<&str> = parts.collect();
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    number && words.len() >= 2 && words.iter().all(is_word) && AREAS.contains(&words[words.len() - 1])
}

/// The first parts of Region names.
const AREAS: &[&str] = &["af", "ap", "ca", "cn", "eu", "eusc", "il", "me", "mx", "sa", "us"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_leads_to_its_endpoint_service() {
        for (name, service) in [
            ("sts.eu-west-1.amazonaws.com", "com.amazonaws.eu-west-1.sts"),
            ("api.ecr.us-east-1.amazonaws.com", "com.amazonaws.us-east-1.ecr.api"),
            ("123456789012.dkr.ecr.us-east-1.amazonaws.com", "com.amazonaws.us-east-1.ecr.dkr"),
            ("bucket.s3.us-gov-west-1.amazonaws.com", "com.amazonaws.us-gov-west-1.s3"),
            ("a.b.s3.eu-west-1.amazonaws.com", "com.amazonaws.eu-west-1.s3"),
            ("kinesis.eu-west-1.amazonaws.com", "com.amazonaws.eu-west-1.kinesis-streams"),
            ("kms-fips.us-east-1.amazonaws.com", "com.amazonaws.us-east-1.kms-fips"),
            ("a1b2-ats.iot.eu-west-1.amazonaws.com", "com.amazonaws.eu-west-1.iot.data"),
            ("lambda.eu-west-1.api.aws", "com.amazonaws.eu-west-1.lambda"),
            ("sts.cn-north-1.amazonaws.com.cn", "cn.com.amazonaws.cn-north-1.sts"),
            ("sts.us-iso-east-1.c2s.ic.gov", "gov.ic.c2s.us-iso-east-1.sts"),
            ("iam.amazonaws.com", "com.amazonaws.iam"),
            ("x.accesspoint.s3-global.amazonaws.com", "com.amazonaws.s3-global.accesspoint"),
        ] {
            assert_eq!(remedy(&name.parse().unwrap()), Remedy::Endpoint(service.to_owned()), "{name}");
        }
    }

    #[test]
    fn global_and_legacy_names_lead_to_regional_ones() {
        for (name, service) in [
            ("s3.amazonaws.com", "s3"),
            ("bucket.s3.amazonaws.com", "s3"),
            ("sts.amazonaws.com", "sts"),
            ("s3-us-west-2.amazonaws.com", "s3"),
            ("bucket.s3-us-west-2.amazonaws.com", "s3"),
            ("s3.dualstack.eu-west-1.amazonaws.com", "s3"),
            ("bucket.s3.dualstack.eu-west-1.amazonaws.com", "s3"),
        ] {
            assert_eq!(remedy(&name.parse().unwrap()), Remedy::RegionalName(service.to_owned()), "{name}");
        }
    }

    #[test]
    fn resources_and_sign_in_have_no_endpoint() {
        for (name, found) in [
            ("lb-1.eu-west-1.elb.amazonaws.com", Remedy::Unknown),
            ("db.abc.eu-west-1.rds.amazonaws.com", Remedy::Unknown),
            ("ip-10-0-0-1.ec2.internal", Remedy::Unknown),
            ("nothing-such.eu-west-1.amazonaws.com", Remedy::Unknown),
            ("amazonaws.com", Remedy::Unknown),
            ("xamazonaws.com", Remedy::Unknown),
            ("eu-west-1.signin.aws.amazon.com", Remedy::PublicOnly),
            ("www.example.org", Remedy::Unknown),
        ] {
            assert_eq!(remedy(&name.parse().unwrap()), found, "{name}");
        }
    }

    #[test]
    fn families_are_those_of_every_preset() {
        for (name, is_aws) in [
            ("sts.eu-west-1.amazonaws.com", true),
            ("ip-10-0-0-1.eu-west-1.compute.internal", true),
            ("sts.cn-north-1.amazonaws.com.cn", true),
            ("d111.cloudfront.net", false),
            ("example.org", false),
        ] {
            assert_eq!(is_aws_name(&name.parse().unwrap()), is_aws, "{name}");
        }
    }
}
