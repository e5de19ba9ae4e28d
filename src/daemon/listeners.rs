//! Sockets for clients: every address of every transport, one socket for each worker, or those that were handed over.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::system::uname;
use tracing::info;

use super::{StartError, groups};
use crate::{
    config::{Boot, Encryption, Endpoint, Need},
    net::socket::{self, BindError, Inherited, ListenOptions, Listeners, PortProtocol, spread},
    serve::{Protocol, QuicServer},
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
    Quic(UdpSocket, QuicServer),
}

/// Who bound a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// This process.
    Own,
    /// Another one, which handed it over.
    HandedOver,
}

/// A second descriptor of a listening socket, to hand over.
#[derive(Debug)]
pub(super) struct KeptSocket {
    /// Its protocol and address in the alphabet of systemd's FDNAME=, which has no colon.
    pub(super) name: String,
    /// Who bound it.
    pub(super) origin: Origin,
    /// The descriptor.
    pub(super) descriptor: OwnedFd,
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
    kept: Vec<KeptSocket>,
}

impl Bound {
    /// Binds every address that has no `inherited` socket. `certificate` is present if there is an encrypted listener.
    pub(super) fn bind(
        boot: &Boot,
        certificate: Option<&Arc<ServerCertificate>>,
        count: usize,
        inherited: &mut Inherited,
    ) -> Result<Self, StartError> {
        let options = ListenOptions { freebind: boot.freebind, ..ListenOptions::default() };
        let mut bound = Self { workers: (0..count).map(|_| Vec::new()).collect(), ..Self::default() };
        let mut binder = Binder { count, options, inherited };
        for listen in &boot.listen {
            let address = resolve(&listen.endpoint)?;
            match binder.plain(address) {
                Ok((address, udp, tcp)) => {
                    bound.plain.push(address);
                    bound.add(Transport::Udp, address, udp, Socket::Udp)?;
                    bound.add(Transport::Tcp, address, tcp, |listener| Socket::Stream(listener, Protocol::Tcp))?;
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
        bound.encrypted(boot, certificate, &mut binder)?;
        Ok(bound)
    }

    fn encrypted(
        &mut self,
        boot: &Boot,
        certificate: Option<&Arc<ServerCertificate>>,
        binder: &mut Binder<'_>,
    ) -> Result<(), StartError> {
        for listen in boot.https.iter().filter(|listen| listen.encryption == Encryption::InFront) {
            self.streams(&listen.endpoint, Transport::Https, &Protocol::Https(None), binder)?;
            self.in_front.extend(self.all.last());
        }
        let Some(certificate) = certificate else { return Ok(()) };
        let dot = tls::TlsServer::new(certificate, &[Alpn::Dot])?;
        for endpoint in &boot.tls {
            self.streams(endpoint, Transport::Tls, &Protocol::Tls(dot.clone()), binder)?;
        }
        let https = tls::TlsServer::new(certificate, &[Alpn::H2, Alpn::Http11])?;
        for listen in boot.https.iter().filter(|listen| listen.encryption == Encryption::Here) {
            self.streams(&listen.endpoint, Transport::Https, &Protocol::Https(Some(https.clone())), binder)?;
        }
        let doq = tls::TlsServer::new(certificate, &[Alpn::Doq])?;
        let id_key = rand::random();
        for endpoint in &boot.quic {
            let sockets = binder.udp(resolve(endpoint)?)?;
            let address = sockets.sockets[0].local_addr()?;
            self.keep(PortProtocol::Udp, address, &sockets)?;
            self.all.push((Transport::Quic, address));
            // Another host with this certificate could otherwise be made to reset connections of this one.
            let place = format!("{} {address}", uname().nodename().to_string_lossy());
            let reset_key = Arc::new(certificate.pair().reset_key().at(&place));
            let server = QuicServer { tls: doq.clone(), reset_key, id_key };
            // Not shared where there are too few: packets of a connection belong to the endpoint that has it.
            for (at, socket) in sockets.sockets.into_iter().enumerate() {
                let worker = at % self.workers.len();
                self.workers[worker].push(Socket::Quic(socket, server.clone()));
            }
        }
        Ok(())
    }

    fn streams(
        &mut self,
        endpoint: &Endpoint,
        transport: Transport,
        protocol: &Protocol,
        binder: &mut Binder<'_>,
    ) -> Result<(), StartError> {
        let listeners = binder.tcp(resolve(endpoint)?)?;
        let address = listeners.sockets[0].local_addr()?;
        self.add(transport, address, listeners, |listener| Socket::Stream(listener, protocol.clone()))?;
        Ok(())
    }

    fn add<T: AsFd + From<OwnedFd>>(
        &mut self,
        transport: Transport,
        address: SocketAddr,
        sockets: Sockets<T>,
        served: impl Fn(T) -> Socket,
    ) -> io::Result<()> {
        let protocol = if transport == Transport::Udp { PortProtocol::Udp } else { PortProtocol::Tcp };
        self.keep(protocol, address, &sockets)?;
        self.all.push((transport, address));
        let dealt = spread(sockets.sockets, self.workers.len())?;
        for (worker, sockets) in self.workers.iter_mut().zip(dealt) {
            worker.extend(sockets.into_iter().map(&served));
        }
        Ok(())
    }

    fn keep<T: AsFd>(&mut self, protocol: PortProtocol, address: SocketAddr, sockets: &Sockets<T>) -> io::Result<()> {
        for socket in &sockets.sockets {
            let name = format!("{protocol}-{address}").replace(':', "_");
            let descriptor = socket.as_fd().try_clone_to_owned()?;
            self.kept.push(KeptSocket { name, origin: sockets.origin, descriptor });
        }
        Ok(())
    }

    /// Takes second descriptors of all listening sockets.
    pub(super) fn take_kept(&mut self) -> Vec<KeptSocket> {
        std::mem::take(&mut self.kept)
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

/// The sockets of one address.
struct Sockets<T> {
    origin: Origin,
    sockets: Vec<T>,
}

/// Binds addresses, or finds sockets that were handed over for them.
struct Binder<'a> {
    count: usize,
    options: ListenOptions,
    inherited: &'a mut Inherited,
}

impl Binder<'_> {
    /// The address with its port, and the sockets of plain DNS.
    fn plain(
        &mut self,
        address: SocketAddr,
    ) -> Result<(SocketAddr, Sockets<UdpSocket>, Sockets<TcpListener>), BindError> {
        if [PortProtocol::Udp, PortProtocol::Tcp].iter().any(|&protocol| self.inherited.has(protocol, address)) {
            return Ok((address, self.udp(address)?, self.tcp(address)?));
        }
        let Listeners { address, udp, tcp } = socket::listeners(address, self.count, &self.options)?;
        Ok((address, Sockets { origin: Origin::Own, sockets: udp }, Sockets { origin: Origin::Own, sockets: tcp }))
    }

    fn udp(&mut self, address: SocketAddr) -> Result<Sockets<UdpSocket>, BindError> {
        let inherited = self.inherited.take_udp(address);
        match inherited.map_err(|source| BindError::explain(PortProtocol::Udp, address, source))? {
            none if none.is_empty() => {
                let sockets = socket::udp_listeners(address, self.count, &self.options)?;
                Ok(Sockets { origin: Origin::Own, sockets })
            }
            sockets => Ok(Sockets { origin: Origin::HandedOver, sockets }),
        }
    }

    fn tcp(&mut self, address: SocketAddr) -> Result<Sockets<TcpListener>, BindError> {
        let inherited = self.inherited.take_tcp(address);
        match inherited.map_err(|source| BindError::explain(PortProtocol::Tcp, address, source))? {
            none if none.is_empty() => {
                let sockets = socket::tcp_listeners(address, self.count, &self.options)?;
                Ok(Sockets { origin: Origin::Own, sockets })
            }
            sockets => Ok(Sockets { origin: Origin::HandedOver, sockets }),
        }
    }
}

fn resolve(endpoint: &Endpoint) -> Result<SocketAddr, StartError> {
    groups::resolve(endpoint).ok_or_else(|| StartError::NoInterface(endpoint.to_string()))
}
