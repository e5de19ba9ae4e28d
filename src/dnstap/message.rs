//! The messages of dnstap.proto that we write. They are declared by hand: so few are not worth a protobuf compiler at
//! build time.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use prost::Message as _;

use super::{Copied, TappedKind};
use crate::clock::Moment;

/// `Dnstap.Type.MESSAGE`
const MESSAGE: i32 = 1;

/// `Dnstap`
#[derive(Clone, PartialEq, prost::Message)]
struct Dnstap {
    #[prost(bytes = "vec", optional, tag = "1")]
    identity: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    version: Option<Vec<u8>>,
    #[prost(message, optional, tag = "14")]
    message: Option<Message>,
    #[prost(int32, required, tag = "15")]
    kind: i32,
}

/// `Message`
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(int32, optional, tag = "2")]
    socket_family: Option<i32>,
    #[prost(int32, optional, tag = "3")]
    socket_protocol: Option<i32>,
    #[prost(bytes = "vec", optional, tag = "4")]
    query_address: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "5")]
    response_address: Option<Vec<u8>>,
    #[prost(uint32, optional, tag = "7")]
    response_port: Option<u32>,
    #[prost(uint64, optional, tag = "8")]
    query_time_sec: Option<u64>,
    #[prost(fixed32, optional, tag = "9")]
    query_time_nsec: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "10")]
    query_message: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "12")]
    response_time_sec: Option<u64>,
    #[prost(fixed32, optional, tag = "13")]
    response_time_nsec: Option<u32>,
    #[prost(bytes = "vec", optional, tag = "14")]
    response_message: Option<Vec<u8>>,
}

/// The identity of the writer.
#[derive(Debug)]
pub(super) struct DnstapIdentity {
    /// The host's name.
    pub(super) host: Option<Vec<u8>>,
    /// The program and its version.
    pub(super) version: Vec<u8>,
}

/// Appends a message. `wall` and `now` are the same time on both clocks.
pub(super) fn encode(copied: Copied, identity: &DnstapIdentity, (wall, now): (Duration, Moment), out: &mut Vec<u8>) {
    let at = |moment: Moment| wall.saturating_sub(now.since(moment));
    let is_response = matches!(copied.kind, TappedKind::ClientResponse | TappedKind::ForwarderResponse);
    let (asked, answered) = (at(copied.asked), is_response.then(|| at(copied.at)));
    let octets = Some(copied.message.into_vec());
    let (query_message, response_message) = if is_response { (None, octets) } else { (octets, None) };
    let address = copied.client.or_else(|| copied.server.as_ref().map(SocketAddr::ip));
    let message = Message {
        kind: copied.kind as i32,
        socket_family: address.map(|address| if address.is_ipv4() { 1 } else { 2 }),
        socket_protocol: Some(copied.transport.dnstap_protocol()),
        query_address: copied.client.map(octets_of),
        response_address: copied.server.map(|server| octets_of(server.ip())),
        response_port: copied.server.map(|server| u32::from(server.port())),
        query_time_sec: Some(asked.as_secs()),
        query_time_nsec: Some(asked.subsec_nanos()),
        query_message,
        response_time_sec: answered.map(|time| time.as_secs()),
        response_time_nsec: answered.map(|time| time.subsec_nanos()),
        response_message,
    };
    let dnstap = Dnstap {
        identity: identity.host.clone(),
        version: Some(identity.version.clone()),
        message: Some(message),
        kind: MESSAGE,
    };
    dnstap.encode_raw(out);
}

fn octets_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
