//! One server: whether it can be reached over each transport it needs, and whether its certificate is right.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use tokio::net::{TcpSocket, TcpStream};

use super::{
    document::DoctorFinding,
    exchange::{self, Outcome, Style, TIMEOUT},
    kind::Kind,
};
use crate::{
    clock,
    net::socket::upstream_tcp,
    networks::holds_public,
    plural::Plural,
    tls::{Alpn, HandshakeError, TlsClient},
    upstream::{ServerSpec, quic_certificate},
    wire::{Transport, UpstreamQuery},
};

/// A certificate that expires within this time is a finding, in seconds.
const CERTIFICATE_WARNING: i64 = 14 * 86_400;
const DAY: i64 = 86_400;
/// Time for a connection to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Where a VPC's resolver answers besides its third address (VPC+2).
const LINK_LOCAL_RESOLVERS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 169, 253)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253))];

/// How the probe's query ended over each transport.
#[derive(Debug)]
pub(super) struct Reach {
    /// Over the transport that the configuration names.
    pub(super) main: Outcome,
    /// Over TCP, where the configuration names UDP.
    pub(super) tcp: Option<Outcome>,
    /// Without EDNS, where nothing came with it.
    pub(super) plain: Option<Outcome>,
    /// Whether it accepts connections and answers nothing on them.
    pub(super) is_mute: bool,
    /// Seconds until the certificate expires.
    pub(super) certificate: Option<i64>,
}

/// Asks a server over every transport that it needs.
pub(super) async fn reach(spec: &ServerSpec, probe: &UpstreamQuery, style: Style) -> Reach {
    if spec.transport != Transport::Udp {
        let mut main = exchange::ask(spec, spec.transport, probe, style).await;
        let certificate = match main {
            Outcome::Answered(_) => certificate(spec).await,
            _ => None,
        };
        let is_mute = matches!(main, Outcome::Silent) && accepts(spec).await;
        if matches!(main, Outcome::Silent) && spec.transport == Transport::Quic && !is_mute {
            // quinn takes no notice of the host's word that nothing listens; a plain datagram does.
            let datagram = exchange::ask(spec, Transport::Udp, probe, style).await;
            main = if matches!(datagram, Outcome::NothingListens) { datagram } else { main };
        }
        return Reach { main, tcp: None, plain: None, is_mute, certificate };
    }
    let without = Style { payload: None, ..style };
    let (main, tcp, plain) = tokio::join!(
        exchange::ask(spec, Transport::Udp, probe, style),
        exchange::ask(spec, Transport::Tcp, probe, style),
        exchange::ask(spec, Transport::Udp, probe, without),
    );
    let plain = matches!(main, Outcome::Silent).then_some(plain);
    Reach { main, tcp: Some(tcp), plain, is_mute: false, certificate: None }
}

/// Seconds until the server's certificate expires.
async fn certificate(spec: &ServerSpec) -> Option<i64> {
    let der = certificate_der(spec).await?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
    let now = i64::try_from(clock::wall().as_secs()).unwrap_or(i64::MAX);
    Some(certificate.validity().not_after.timestamp() - now)
}

async fn certificate_der(spec: &ServerSpec) -> Option<Vec<u8>> {
    if spec.transport == Transport::Quic {
        return tokio::time::timeout(TIMEOUT, quic_certificate(spec)).await.ok()?;
    }
    let alpn = Alpn::of(spec.transport)?;
    let identity = spec.identity.as_ref()?;
    let client = TlsClient::new(&identity.roots, spec.address.ip(), identity.name.as_deref(), alpn);
    let stream = connect(spec).await?;
    let stream = tokio::time::timeout(TIMEOUT, client.connect(stream)).await.ok()?.ok()?;
    Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec())
}

/// Whether the server takes connections, whatever comes on them.
async fn accepts(spec: &ServerSpec) -> bool {
    match spec.transport {
        Transport::Quic => certificate_der(spec).await.is_some(),
        _ => connect(spec).await.is_some(),
    }
}

/// A TCP connection, for checks that are not queries.
async fn connect(spec: &ServerSpec) -> Option<TcpStream> {
    let peer = spec.via.locate(spec.address).ok()?;
    let socket = TcpSocket::from_std_stream(upstream_tcp(peer, &spec.via).ok()?.into());
    tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(peer)).await.ok()?.ok()
}

/// The cause that keeps queries from a server, or soon will; at most one finding.
pub(super) fn judge(spec: &ServerSpec, reach: &Reach) -> Option<DoctorFinding> {
    let server = spec.to_string();
    let about = |kind, what: String| Some(DoctorFinding::new(kind, what).of_server(&server));
    let transport = spec.transport.label().to_ascii_uppercase();
    match &reach.main {
        Outcome::NoRoute(why) => return about(Kind::NoRoute, format!("{server}: {why}")),
        Outcome::Local(why) => return about(Kind::ThisHostCannot, format!("{server}: {why}")),
        Outcome::Handshake(error) => return about(of_handshake(error), format!("{server}: {error}")),
        Outcome::Broken(why) if spec.transport.is_encrypted() => {
            return about(Kind::EncryptionFailed, format!("{server}: {why}"));
        }
        Outcome::Silent if reach.is_mute && spec.transport.is_encrypted() => {
            let what = format!("{server} takes the connection, and then nothing comes over {transport}");
            return about(Kind::EncryptionFailed, what);
        }
        Outcome::Answered(_) | Outcome::Silent | Outcome::NothingListens | Outcome::Broken(_) => {}
    }
    let answers = |outcome: &Option<Outcome>| outcome.as_ref().is_some_and(|outcome| outcome.reply().is_some());
    if reach.main.reply().is_some() {
        if reach.tcp.is_some() && !answers(&reach.tcp) {
            return about(Kind::TcpBlocked, format!("{server} answers over UDP, and over TCP {}", how(&reach.tcp)));
        }
        let left = reach.certificate.filter(|left| *left < CERTIFICATE_WARNING)?;
        let days = u64::try_from(left / DAY).unwrap_or(0);
        return about(
            Kind::CertificateExpires,
            format!("the certificate of {server} expires in {}", Plural(days, "day")),
        );
    }
    if answers(&reach.plain) {
        return about(Kind::EdnsLost, format!("{server} answers without EDNS, and is silent with it"));
    }
    if answers(&reach.tcp) {
        return about(Kind::UdpBlocked, format!("{server} answers over TCP, and over UDP {}", how(&Some(&reach.main))));
    }
    match &reach.main {
        Outcome::NothingListens => {
            about(Kind::NothingListens, format!("{server}: connection refused over {transport}"))
        }
        Outcome::Silent if is_vpc_resolver(spec.address.ip()) => {
            about(Kind::VpcResolverAddress, format!("{server} does not answer, and is the address of a VPC's resolver"))
        }
        _ => about(Kind::ServerSilent, format!("{server} does not answer over {transport}")),
    }
}

fn how(outcome: &Option<impl std::borrow::Borrow<Outcome>>) -> String {
    match outcome.as_ref().map(std::borrow::Borrow::borrow) {
        Some(Outcome::NothingListens) => "the connection is refused".to_owned(),
        Some(Outcome::NoRoute(why) | Outcome::Local(why) | Outcome::Broken(why)) => why.clone(),
        _ => "nothing comes".to_owned(),
    }
}

fn of_handshake(error: &HandshakeError) -> Kind {
    match error {
        // Over QUIC nothing but rustls's words tell faults of a certificate apart.
        HandshakeError::Quic { reason, .. } if reason.contains("certificate not valid for name") => {
            Kind::CertificateName
        }
        HandshakeError::Quic { reason, .. } if reason.contains("certificate expired") => Kind::CertificateExpired,
        HandshakeError::Quic { reason, .. } if reason.contains("certificate not valid yet") => Kind::ClockOff,
        HandshakeError::OtherName { .. } => Kind::CertificateName,
        HandshakeError::Expired => Kind::CertificateExpired,
        HandshakeError::NotYetValid => Kind::ClockOff,
        error if error.is_about_identity() => Kind::CertificateUntrusted,
        _ => Kind::EncryptionFailed,
    }
}

/// Whether an address is, or has the form of, that of a VPC's own resolver: the third of a private network.
fn is_vpc_resolver(address: IpAddr) -> bool {
    let is_third = |v4: Ipv4Addr| v4.octets()[3] == 2 && !holds_public(IpAddr::V4(v4).into()) && !v4.is_loopback();
    LINK_LOCAL_RESOLVERS.contains(&address) || matches!(address, IpAddr::V4(v4) if is_third(v4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent_at(address: &str) -> Option<Kind> {
        let spec = ServerSpec::plain(Transport::Udp, format!("{address}:53").parse().unwrap());
        let reach =
            Reach { main: Outcome::Silent, tcp: Some(Outcome::Silent), plain: None, is_mute: false, certificate: None };
        judge(&spec, &reach).map(|finding| finding.kind)
    }

    #[test]
    fn the_address_of_a_vpcs_resolver_is_told_from_a_silent_server() {
        assert_eq!(silent_at("10.20.0.2"), Some(Kind::VpcResolverAddress));
        assert_eq!(silent_at("169.254.169.253"), Some(Kind::VpcResolverAddress));
        assert_eq!(silent_at("10.20.0.12"), Some(Kind::ServerSilent));
        assert_eq!(silent_at("203.0.114.2"), Some(Kind::ServerSilent));
    }

    #[test]
    fn a_certificate_is_told_of_two_weeks_before_its_end() {
        let spec = ServerSpec::plain(Transport::Tls, "10.1.1.1:853".parse().unwrap());
        let expires = |left| {
            let reply = exchange::tests::answered();
            let reach = Reach { main: reply, tcp: None, plain: None, is_mute: false, certificate: Some(left) };
            judge(&spec, &reach).map(|finding| finding.what)
        };
        assert_eq!(expires(15 * DAY), None);
        assert_eq!(expires(3 * DAY + 5).as_deref(), Some("the certificate of tls://10.1.1.1 expires in 3 days"));
    }
}
