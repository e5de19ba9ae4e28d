//! The AWS name families: what `preset:aws` and the others stand for, and which names must never be forced private.
//!
//! Each family is in one preset only, so that two partitions can have a rule each. The names of EC2 instances in every
//! partition (`compute.internal` and the like) are in `aws`; a rule for another partition lists them next to its
//! preset.

mod services;

use schemars::JsonSchema;
use serde::Serialize;
pub use services::{Remedy, is_aws_name, remedy};

/// A preset: the name families of one AWS partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Preset {
    /// The part after `preset:`.
    pub name: &'static str,
    /// The partition.
    pub about: &'static str,
    /// Its families.
    pub families: &'static [PresetDomain],
}

/// A domain, and what is below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PresetDomain {
    /// The domain, without a final dot.
    pub domain: &'static str,
    /// What it is for.
    pub about: &'static str,
}

const fn family(domain: &'static str, about: &'static str) -> PresetDomain {
    PresetDomain { domain, about }
}

/// Every preset.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "aws",
        about: "AWS commercial regions and GovCloud (US)",
        families: &[
            family("amazonaws.com", "service APIs and resources: s3, sts, *.vpce, *.elb, *.rds, *.dkr.ecr, compute"),
            family("api.aws", "dual-stack service APIs"),
            family("on.aws", "dual-stack and application names: ECR, Lambda URLs, SageMaker (Lattice is link-local)"),
            family("sagemaker.aws", "SageMaker notebooks and studios"),
            family("compute.internal", "private names of EC2 instances"),
            family("ec2.internal", "private names of EC2 instances in us-east-1"),
            family("compute-1.internal", "older private names of EC2 instances in us-east-1"),
        ],
    },
    Preset {
        name: "aws-cn",
        about: "AWS China (Beijing, Ningxia)",
        families: &[
            family("amazonaws.com.cn", "service APIs and resources"),
            family("api.amazonwebservices.com.cn", "dual-stack service APIs"),
        ],
    },
    Preset {
        name: "aws-iso",
        about: "AWS Top Secret (US)",
        families: &[
            family("c2s.ic.gov", "service APIs and resources"),
            family("api.aws.ic.gov", "dual-stack service APIs"),
        ],
    },
    Preset {
        name: "aws-iso-b",
        about: "AWS Secret (US)",
        families: &[
            family("sc2s.sgov.gov", "service APIs and resources"),
            family("api.aws.scloud", "dual-stack service APIs"),
        ],
    },
    Preset {
        name: "aws-iso-e",
        about: "AWS isolated partition (Europe)",
        families: &[
            family("cloud.adc-e.uk", "service APIs and resources"),
            family("api.cloud-aws.adc-e.uk", "dual-stack service APIs"),
        ],
    },
    Preset {
        name: "aws-iso-f",
        about: "AWS isolated partition (US)",
        families: &[
            family("csp.hci.ic.gov", "service APIs and resources"),
            family("api.aws.hci.ic.gov", "dual-stack service APIs"),
        ],
    },
    Preset {
        name: "aws-eusc",
        about: "AWS European Sovereign Cloud",
        families: &[
            family("amazonaws.eu", "service APIs and resources"),
            family("api.amazonwebservices.eu", "dual-stack service APIs"),
        ],
    },
];

/// AWS names that exist only in public: a guard on them would refuse every answer.
pub const PUBLIC_ONLY: &[PresetDomain] = &[
    family("awsapps.com", "access portals and WorkSpaces sign-in"),
    family("awsstatic.com", "the console's static files"),
    family("cloudfront.net", "CloudFront distributions"),
    family("awsglobalaccelerator.com", "Global Accelerator"),
    family("signin.aws.amazon.com", "console sign-in"),
    family("console.aws.amazon.com", "the console"),
    family("signin.aws", "console sign-in"),
    family("signin.amazonaws.cn", "console sign-in, China"),
    family("amazonaws-us-gov.com", "console and its sign-in, GovCloud (US)"),
    family("signin.amazonaws-eusc.eu", "console sign-in, European Sovereign Cloud"),
    family("c2shome.ic.gov", "console sign-in, aws-iso"),
    family("sc2shome.sgov.gov", "console sign-in, aws-iso-b"),
    family("csphome.adc-e.uk", "console sign-in, aws-iso-e"),
    family("csphome.hci.ic.gov", "console sign-in, aws-iso-f"),
];

/// The preset with this name.
pub fn preset(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::wire::Name;

    #[test]
    fn every_family_is_a_name_and_in_one_preset_only() {
        let mut seen = HashSet::new();
        for family in PRESETS.iter().flat_map(|preset| preset.families).chain(PUBLIC_ONLY) {
            let name: Name = family.domain.parse().unwrap();
            assert!(seen.insert(name), "{} twice", family.domain);
        }
    }
}
