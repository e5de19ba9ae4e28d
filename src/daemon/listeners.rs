//! Sockets for clients: every address of every transport, one socket for each worker.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
};

use tracing::info;

use super::{StartError, groups};
use crate::{
    config::{Boot, Encryption, Endpoint, Need},
    net::socket::{self, BindError, ListenOptions},
    serve::Protocol,
    tls::{self, Alpn, ServerCertificate},
    wire::Transport,
};

/// What one worker serves.
#[derive(Debug)]
pub(super) enum Socket {
    /// Plain datagrams.
    Udp(UdpSocket),
    /// Connections, with their protocol.
    Stream(TcpListener, Protocol),
    /// QUIC.
    Quic(UdpSocket, tls::TlsServer),
}

/// All sockets, bound.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// Addresses of plain DNS, which `/healthz` and the check for our own addresses use.
    pub(super) plain: Vec<SocketAddr>,
    /// The addresses of each transport, with the ports that the kernel chose.
    pub(super) all: Vec<(Transport, SocketAddr)>,
    /// The addresses in `all` that are behind a proxy which ends TLS.
    in_front: Vec<(Transport, SocketAddr)>,
    /// The sockets of each worker.
    workers: Vec<Vec<Socket>>,
}

impl Bound {
    /// Binds every address. `certificate` is present if there is an encrypted listener.
    pub(super) fn bind(
        boot: &Boot,
        certificate: Option<&Arc<ServerCertificate>>,
        count: usize,
    ) -> Result<Self, StartError> {
        let options = ListenOptions { freebind: boot.freebind, ..ListenOptions::default() };
        let mut bound = Self { workers: (0..count).map(|_| Vec::new()).collect(), ..Self::default() };
        for listen in &boot.listen {
            let address = resolve(&listen.endpoint)?;
            match socket::listeners(address, count, &options) {
                Ok(both) => {
                    bound.plain.push(both.address);
                    bound.add(Transport::Udp, both.address, both.udp.into_iter().map(Socket::Udp));
                    let tcp = both.tcp.into_iter().map(|listener| Socket::Stream(listener, Protocol::Tcp));
                    bound.add(Transport::Tcp, both.address, tcp);
                }
                Err(error @ (BindError::NoIpv6 { .. } | BindError::NotHere { .. }))
                    if listen.need == Need::IfSupported =>
                {
                    info!("{error}; `listen` does not name it, so it goes on without");
                }
                Err(error) => return Err(error.into()),
            }
        }
        if bound.plain.is_empty() {
            return Err(StartError::NoAddress);
        }
        bound.encrypted(boot, certificate, &options)?;
        Ok(bound)
    }

    fn encrypted(
        &mut self,
        boot: &Boot,
        certificate: Option<&Arc<ServerCertificate>>,
        options: &ListenOptions,
    ) -> Result<(), StartError> {
        for listen in boot.https.iter().filter(|listen| listen.encryption == Encryption::InFront) {
            self.streams(&listen.endpoint, Transport::Https, &Protocol::Https(None), options)?;
            self.in_front.extend(self.all.last());
        }
        let Some(certificate) = certificate else { return Ok(()) };
        let dot = tls::TlsServer::new(certificate, &[Alpn::Dot])?;
        for endpoint in &boot.tls {
            self.streams(endpoint, Transport::Tls, &Protocol::Tls(dot.clone()), options)?;
        }
        let https = tls::TlsServer::new(certificate, &[Alpn::H2, Alpn::Http11])?;
        for listen in boot.https.iter().filter(|listen| listen.encryption == Encryption::Here) {
            self.streams(&listen.endpoint, Transport::Https, &Protocol::Https(Some(https.clone())), options)?;
        }
        let doq = tls::TlsServer::new(certificate, &[Alpn::Doq])?;
        for endpoint in &boot.quic {
            let sockets = socket::udp_listeners(resolve(endpoint)?, self.workers.len(), options)?;
            let address = sockets[0].local_addr()?;
            self.add(Transport::Quic, address, sockets.into_iter().map(|socket| Socket::Quic(socket, doq.clone())));
        }
        Ok(())
    }

    fn streams(
        &mut self,
        endpoint: &Endpoint,
        transport: Transport,
        protocol: &Protocol,
        options: &ListenOptions,
    ) -> Result<(), StartError> {
        let listeners = socket::tcp_listeners(resolve(endpoint)?, self.workers.len(), options)?;
        let address = listeners[0].local_addr()?;
        self.add(transport, address, listeners.into_iter().map(|listener| Socket::Stream(listener, protocol.clone())));
        Ok(())
    }

    fn add(&mut self, transport: Transport, address: SocketAddr, sockets: impl Iterator<Item = Socket>) {
        self.all.push((transport, address));
        for (worker, socket) in self.workers.iter_mut().zip(sockets) {
            worker.push(socket);
        }
    }

    /// Takes the sockets of each worker.
    pub(super) fn take(&mut self) -> Vec<Vec<Socket>> {
        std::mem::take(&mut self.workers)
    }

    /// The listeners that present the certificate.
    pub(super) fn showing_certificate(&self) -> impl Iterator<Item = (Transport, SocketAddr)> {
        let plain = [Transport::Udp, Transport::Tcp];
        self.all
            .iter()
            .copied()
            .filter(move |listener| !plain.contains(&listener.0) && !self.in_front.contains(listener))
    }

    /// Logs the addresses.
    pub(super) fn log(&self) {
        for address in &self.plain {
            info!(%address, "listening on {address}");
        }
        let encrypted = |transport: Transport| !matches!(transport, Transport::Udp | Transport::Tcp);
        for (transport, address) in self.all.iter().filter(|(transport, _)| encrypted(*transport)) {
            let transport = transport.label();
            info!(%address, transport, "listening on {address} ({transport})");
        }
    }
}

fn resolve(endpoint: &Endpoint) -> Result<SocketAddr, StartError> {
    groups::resolve(endpoint).ok_or_else(|| StartError::NoInterface(endpoint.to_string()))
}
