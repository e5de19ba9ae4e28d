//! What carries DNS messages, between a client and us or between us and an upstream.

/// A transport of DNS messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// UDP (RFC 1035); to upstreams also TCP, where a response is truncated.
    Udp,
    /// TCP (RFC 7766).
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
    /// DNS over QUIC (RFC 9250).
    Quic,
}

impl Transport {
    /// Every transport, in the order of its discriminants.
    pub const ALL: [Self; 5] = [Self::Udp, Self::Tcp, Self::Tls, Self::Https, Self::Quic];

    /// The scheme in front of an address, and the label of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Quic => "quic",
        }
    }

    /// Whether TLS protects it: the server shows who it is.
    pub const fn is_encrypted(self) -> bool {
        match self {
            Self::Udp | Self::Tcp => false,
            Self::Tls | Self::Https | Self::Quic => true,
        }
    }

    /// The port where none is written.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 53,
            Self::Tls | Self::Quic => 853,
            Self::Https => 443,
        }
    }

    /// What is kept open to a server with this transport: TCP beside datagrams, else the transport itself.
    pub const fn of_streams(self) -> Self {
        match self {
            Self::Udp => Self::Tcp,
            other => other,
        }
    }

    /// Its number in dnstap (`SocketProtocol` of dnstap.proto).
    pub const fn dnstap_protocol(self) -> i32 {
        match self {
            Self::Udp => 1,
            Self::Tcp => 2,
            Self::Tls => 3,
            Self::Https => 4,
            Self::Quic => 7,
        }
    }

    /// Round trips until the first answer on a new connection.
    pub const fn round_trips(self) -> u32 {
        match self {
            Self::Udp => 1,
            Self::Tcp | Self::Quic => 2,
            Self::Tls | Self::Https => 3,
        }
    }
}
