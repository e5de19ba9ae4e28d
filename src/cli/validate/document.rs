//! The document of `tidegate query --validate --json`: a verdict, and the chain that leads to it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What DNSSEC says of one name and type. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::cli) struct Validation {
    /// The name.
    pub(in crate::cli) name: String,
    /// The record type.
    #[serde(rename = "type")]
    pub(in crate::cli) qtype: String,
    /// The server that was asked.
    pub(in crate::cli) server: String,
    /// The verdict.
    pub(in crate::cli) verdict: Verdict,
    /// The verdict of hickory's validator alone; null = it was not asked, or had no answer to judge.
    pub(in crate::cli) validator: Option<Verdict>,
    /// The links of the chain in their order, from the trust anchor to the answer, as far as they hold.
    pub(in crate::cli) chain: Vec<Link>,
    /// The link that broke; null = none.
    pub(in crate::cli) broken: Option<BrokenLink>,
    /// The answer's records.
    pub(in crate::cli) answer: Vec<String>,
    /// Queries that this took.
    pub(in crate::cli) queries: usize,
}

/// The four states of RFC 4033 5, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Verdict {
    /// Signed, from the trust anchor to the answer.
    Secure,
    /// A zone on the way is proven to be unsigned, so nothing vouches for the answer and nothing has to.
    Insecure,
    /// It cannot be told: records that are needed do not come through.
    Indeterminate,
    /// Signatures or records are missing, wrong or expired.
    Bogus,
}

impl Verdict {
    /// In one word.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Secure => "secure",
            Self::Insecure => "insecure",
            Self::Indeterminate => "indeterminate",
            Self::Bogus => "bogus",
        }
    }
}

/// One step of the chain that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::cli) struct Link {
    /// The zone whose keys vouch for it.
    pub(in crate::cli) zone: String,
    /// What was found, in a sentence.
    pub(in crate::cli) text: String,
}

/// The step where the chain ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::cli) struct BrokenLink {
    /// The zone that it is in.
    pub(in crate::cli) zone: String,
    /// The records that it is about, such as `A www.example.`.
    pub(in crate::cli) record: String,
    /// Why, for scripts.
    pub(in crate::cli) cause: Cause,
    /// What is wrong, in a sentence.
    pub(in crate::cli) text: String,
}

/// Why a link broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum Cause {
    /// The server does not answer, or with an error.
    NoAnswer,
    /// The server, or one behind it, leaves signatures out.
    SignaturesStripped,
    /// No trust anchor covers the name.
    NoTrustAnchor,
    /// No key of the anchor's zone is a trust anchor.
    AnchorMismatch,
    /// A signed zone has no keys.
    NoDnskey,
    /// No DS of the parent fits a key of the zone.
    DsMismatch,
    /// A zone that is signed gives records without a signature.
    NoSignature,
    /// The signature is another zone's.
    WrongSigner,
    /// The signature's key is not in the zone.
    NoSuchKey,
    /// The signature's algorithm is not known here.
    UnsupportedAlgorithm,
    /// The signature has expired.
    Expired,
    /// The signature is not valid yet.
    NotYetValid,
    /// The signature does not fit the records.
    BadSignature,
    /// No NSEC or NSEC3 proves that something does not exist.
    NoDenial,
    /// The parent proves that there is no such name, and the server answers for it all the same.
    Denied,
    /// Too many aliases.
    TooManyAliases,
    /// Every link holds, and hickory's validator still says no.
    Validator,
}

impl Cause {
    /// What the verdict is if this ends the chain.
    pub(super) const fn verdict(self) -> Verdict {
        match self {
            Self::NoAnswer | Self::SignaturesStripped | Self::NoTrustAnchor | Self::TooManyAliases => {
                Verdict::Indeterminate
            }
            _ => Verdict::Bogus,
        }
    }
}
