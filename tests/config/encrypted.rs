//! Servers over encrypted transports, and whose certificates they show.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tidegate::{
    config::{Plan, ServerAddress},
    tls::Roots,
};

use crate::lines;

#[test]
fn a_bundle_is_read_with_the_file_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let params = CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
    let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let path = directory.path().join("t.toml");
    fs::write(directory.path().join("ca.pem"), format!("some words before\n{pem}")).unwrap();
    fs::write(directory.path().join("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    fs::write(directory.path().join("torn.pem"), &pem[..pem.len() / 2]).unwrap();
    fs::write(directory.path().join("odd.pem"), pem.replacen("MII", "MIA", 1)).unwrap();
    fs::write(directory.path().join("empty.pem"), "").unwrap();
    let load = |ca: &str| {
        let server = "[upstream.vpc]\nservers = [\"https://10.20.1.10\", \"tls://10.20.2.10#dns.example\"]";
        let rule = "[[forward]]\nzones = [\".\", \"reverse:private\"]\nto = \"vpc\"";
        fs::write(&path, format!("{server}\nca = {ca:?}\n{rule}\n")).unwrap();
        Plan::load(&path)
    };

    let plan = load("ca.pem").unwrap_or_else(|problems| panic!("{problems}"));
    let bundle = plan.live.groups[0].ca.as_ref().unwrap();
    assert_eq!(bundle.path, directory.path().join("ca.pem"));
    assert_eq!(bundle.roots, Roots::from_pem(pem.as_bytes()).unwrap());
    let paths: Vec<_> = plan.live.groups[0].tiers[0]
        .iter()
        .map(|server| match &server.address {
            ServerAddress::Fixed(fixed) => (fixed.http_path.as_deref(), fixed.tls_name.as_deref()),
            ServerAddress::Named(_) | ServerAddress::System { .. } => panic!("it is none"),
        })
        .collect();
    assert_eq!(paths, [(Some("/dns-query"), None), (None, Some("dns.example"))]);
    assert!(load("").unwrap_or_else(|problems| panic!("{problems}")).live.groups[0].ca.is_none());

    for (ca, expected) in [
        ("none.pem", "no such file"),
        ("empty.pem", "it holds no certificate"),
        ("key.pem", "it holds no certificate"),
        ("torn.pem", "it is not PEM"),
        ("odd.pem", "its certificate 1 does not parse"),
    ] {
        let Err(problems) = load(ca) else { panic!("{ca} is no bundle") };
        let found = lines(&problems);
        let place = format!("{}:3:6: ca \"{ca}\" cannot be used: ", path.display());
        assert!(found.len() == 1 && found[0].starts_with(&place) && found[0].contains(expected), "{found:?}");
    }
}

#[test]
fn a_certificate_that_clients_will_refuse_is_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.toml");
    let keys = KeyPair::generate().unwrap();
    fs::write(directory.path().join("key.pem"), keys.serialize_pem()).unwrap();
    let warnings = |change: fn(&mut CertificateParams), names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        fs::write(directory.path().join("chain.pem"), params.self_signed(&keys).unwrap().pem()).unwrap();
        let tls = "[server.tls]\ntls = [\"127.0.0.1:0\"]\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n";
        fs::write(&path, format!("{tls}{}", crate::BASE)).unwrap();
        lines(&Plan::load(&path).unwrap_or_else(|problems| panic!("{problems}")).warnings)
    };
    let ca: fn(&mut CertificateParams) = |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let expired: fn(&mut CertificateParams) = |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    for (change, names, fault) in [
        (ca, &["dns.example"][..], Some("is a CA's")),
        (expired, &["dns.example"], Some("has expired")),
        (|_| {}, &[], Some("is for no name and no address")),
        (|_| {}, &["dns.example"], None),
    ] {
        let found = warnings(change, names);
        let place = format!("{}:3:15: certificate \"chain.pem\" ", path.display());
        let expected = fault.map(|fault| format!("{place}{fault}: clients will refuse it"));
        assert_eq!(found, Vec::from_iter(expected));
    }
}
