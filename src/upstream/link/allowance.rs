//! Limits how much a server may send on a connection: what the answers to its queries can take, and little more.
//!
//! A server that keeps sending what nobody asked for (TLS's session tickets and empty records; HTTP/2's informational
//! responses, pings, settings; QUIC's frames outside of streams) would keep a worker busy as long as the connection is open.
//! Each query raises the allowance; a connection that exceeds it breaks. So octets are counted below TLS, as they come from
//! the network.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::MAX_MESSAGE;

/// Octets allowed before the first query: the handshake, settings, windows, a GOAWAY.
const AT_FIRST: usize = 256 * 1024;
/// Octets allowed for each query: an answer, its header list, its frames.
const A_QUERY: usize = MAX_MESSAGE + 32 * 1024;

/// Octets that may still arrive on a connection. Clones share the count.
#[derive(Debug, Clone)]
pub(super) struct Allowance(Rc<Cell<usize>>);

impl Default for Allowance {
    fn default() -> Self {
        Self(Rc::new(Cell::new(AT_FIRST)))
    }
}

impl Allowance {
    /// Raises the allowance for one more query.
    pub(super) fn add_query(&self) {
        self.0.set(self.0.get().saturating_add(A_QUERY));
    }

    /// Counts octets that arrived.
    ///
    /// # Errors
    /// They are more than is allowed.
    pub(super) fn take(&self, octets: usize) -> io::Result<()> {
        let left = self.0.get().checked_sub(octets);
        self.0.set(left.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "more came than was asked for"))?);
        Ok(())
    }
}

/// A connection that breaks when more arrives than is allowed.
#[derive(Debug)]
pub(super) struct Metered<S> {
    io: S,
    allowance: Allowance,
}

impl<S> Metered<S> {
    pub(super) const fn new(io: S, allowance: Allowance) -> Self {
        Self { io, allowance }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        Poll::Ready(self.allowance.take(buffer.filled().len() - before))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_server_that_goes_on_and_on_is_cut_off_and_one_that_answers_is_not() {
        let allowance = Allowance::default();
        let (mut server, ours) = tokio::io::duplex(AT_FIRST * 4);
        let mut ours = Metered::new(ours, allowance.clone());
        let mut read = vec![0; AT_FIRST];
        server.write_all(&read).await.unwrap();
        ours.read_exact(&mut read).await.unwrap();
        for _ in 0..100 {
            allowance.add_query();
            server.write_all(&read[..MAX_MESSAGE]).await.unwrap();
            ours.read_exact(&mut read[..MAX_MESSAGE]).await.unwrap();
        }
        let mut unasked = 0;
        let error = loop {
            server.write_all(&read[..MAX_MESSAGE]).await.unwrap();
            match ours.read_exact(&mut read[..MAX_MESSAGE]).await {
                Ok(_) => unasked += 1,
                Err(error) => break error,
            }
            assert!(unasked < 1000, "it is never cut off");
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
