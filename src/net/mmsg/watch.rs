//! Datagram sockets as the runtime waits for them.

use std::{io, net::UdpSocket};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers a socket for reading alone. A socket registered for both, like tokio's own `UdpSocket`, wakes its thread
/// once more after each send.
///
/// # Errors
/// The kernel cannot wait for it.
pub fn for_reading(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    register(socket, Interest::READABLE)
}

/// Waits until the kernel takes datagrams from the socket: by another descriptor, registered for this alone.
///
/// # Errors
/// There is no descriptor left, or the kernel cannot wait for it.
pub async fn writable(socket: &UdpSocket) -> io::Result<()> {
    register(socket.try_clone()?, Interest::WRITABLE)?.writable().await.map(drop)
}

fn register(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: the socket owns its descriptor, which stays open and the same socket's until `AsyncFd` drops both.
    let registered = unsafe { AsyncFd::register_with_interest(socket, interest) };
    Ok(registered?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        runtime::Builder,
        time::{error::Elapsed, timeout},
    };

    use super::*;

    #[test]
    fn a_socket_registered_for_reading_hears_of_datagrams_and_not_of_room() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let [one, other] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
            let address = one.local_addr().unwrap();
            let one = for_reading(one).unwrap();
            other.send_to(b"x", address).unwrap();
            timeout(Duration::from_secs(20), one.readable()).await.unwrap().unwrap().retain_ready();
            let room = timeout(Duration::from_millis(10), one.writable()).await;
            assert!(matches!(room, Err(Elapsed { .. })), "it is woken for what nobody asked");
            timeout(Duration::from_secs(20), writable(one.get_ref())).await.unwrap().unwrap();
        });
    }
}
