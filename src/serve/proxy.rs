//! The PROXY protocol, version 2: the client behind a load balancer.
//!
//! Policy: connections from `proxy_protocol` must begin with the header, and only theirs is read. `LOCAL` headers (the
//! balancer's own health checks) and families other than IP keep the balancer's address. Extensions after the addresses
//! (TLVs) are skipped.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use ppp::v2::{Addresses, Command, Header};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::networks::Networks;

/// Octets before the addresses: signature, version, family, length.
const FIXED: usize = 16;
/// The longest accepted header; TLVs that carry certificates are longer, but no load balancer sends them to a DNS
/// server.
const LONGEST: usize = FIXED + 1024;
/// Stands for the client on connections from balancers until the client is known.
pub(super) const UNKNOWN_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// The start of every header.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Whether connections and datagrams from this address begin with a header.
pub(super) fn is_balancer(balancers: &Networks<()>, peer: IpAddr) -> bool {
    !balancers.is_empty() && balancers.contains(peer)
}

/// Reads the header of a balancer's connection and returns the client in it.
///
/// # Errors
/// The header is missing or damaged.
pub(super) async fn read_header<S: AsyncRead + Unpin>(stream: &mut S, balancer: SocketAddr) -> io::Result<SocketAddr> {
    let mut header = [0; LONGEST];
    stream.read_exact(&mut header[..FIXED]).await?;
    let length = header_length(&header).ok_or(ErrorKind::InvalidData)?;
    stream.read_exact(&mut header[FIXED..length]).await?;
    let (client, _) = parse(&header[..length], balancer).ok_or(ErrorKind::InvalidData)?;
    Ok(client)
}

/// The header's length from its first octets; none if they are not a header's, or it is too long.
fn header_length(start: &[u8]) -> Option<usize> {
    let length = start.strip_prefix(SIGNATURE)?.get(2..4)?;
    let length = FIXED + usize::from(u16::from_be_bytes([length[0], length[1]]));
    (length <= LONGEST).then_some(length)
}

/// The client in a balancer's message, and where the query after the header begins.
pub(super) fn parse(octets: &[u8], balancer: SocketAddr) -> Option<(SocketAddr, usize)> {
    let length = header_length(octets)?;
    let header = Header::try_from(octets.get(..length)?).ok()?;
    let client = match (header.command, header.addresses) {
        (Command::Local, _) | (_, Addresses::Unspecified | Addresses::Unix(_)) => balancer,
        (Command::Proxy, Addresses::IPv4(ip)) => SocketAddr::new(ip.source_address.into(), ip.source_port),
        (Command::Proxy, Addresses::IPv6(ip)) => {
            SocketAddr::new(IpAddr::V6(ip.source_address).to_canonical(), ip.source_port)
        }
    };
    Some((client, length))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, addresses].concat()
    }

    #[rstest]
    #[case::ipv4(header(1, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 53]), Some("192.0.2.7:4660"))]
    #[case::with_extensions(
        header(1, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 53, 4, 0, 1, 0]), Some("192.0.2.7:4660"))]
    #[case::health_check(header(0, 0, &[]), Some("10.0.0.1:5"))]
    #[case::no_signature(b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\0\0\0\0".to_vec(), None)]
    #[case::addresses_cut(header(1, 0x11, &[192, 0, 2, 7]), None)]
    #[case::announces_too_much([&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat(), None)]
    #[tokio::test]
    async fn a_header_names_the_client(#[case] header: Vec<u8>, #[case] client: Option<&str>) {
        let balancer = "10.0.0.1:5".parse().unwrap();
        let expected = client.map(|client| client.parse().unwrap());
        let sent = [&header[..], b"rest"].concat();
        let mut stream = &sent[..];
        assert_eq!(read_header(&mut stream, balancer).await.ok(), expected);
        if expected.is_some() {
            assert_eq!(stream, b"rest");
        }
        assert_eq!(parse(&sent, balancer), expected.map(|client| (client, header.len())));
    }
}
