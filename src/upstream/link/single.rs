//! One query on a connection of its own, for `tidegate query`.

use std::{io, pin::pin};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::upstream::{
    server::{connect_error::ConnectError, tls_client},
    spec::ServerSpec,
};

use super::{
    https,
    open::{Carrier, open},
    quic,
    requests::{RequestError, RequestResult},
};

/// Asks a server over its transport (TCP if that is UDP) and returns the message that came back. The query's id should
/// be 0, as HTTPS and QUIC require. The caller sets the time limit and checks the message.
///
/// # Errors
/// The connection failed, or no answer came on it.
pub async fn ask_once(spec: &ServerSpec, query: &[u8]) -> Result<Vec<u8>, ConnectError> {
    let client = tls_client(spec);
    match open(spec, spec.transport, client.as_ref()).await? {
        Carrier::Tcp(io) => over(io, query).await,
        Carrier::Tls(io) => over(io, query).await,
        Carrier::Https(https, uri) => {
            let (sender, driver, _kept) = https.into_parts();
            let mut asking = pin!(https::ask(sender, uri, query.to_vec()));
            message(tokio::select! {
                ended = &mut asking => ended,
                // The connection may end right after its last answer.
                () = driver => asking.await,
            })
        }
        Carrier::Quic(quic) => message(quic::ask(quic.connection, query.to_vec()).await),
    }
}

fn message(ended: RequestResult) -> Result<Vec<u8>, ConnectError> {
    match ended {
        Ok(reply) => Ok(reply.message),
        Err(RequestError::Refused(error)) => Err(error),
        Err(RequestError::Closed) => Err(ConnectError::Network(io::ErrorKind::ConnectionReset)),
        Err(RequestError::Late) => Err(ConnectError::Slow),
    }
}

async fn over<S: AsyncRead + AsyncWrite + Unpin>(mut io: S, query: &[u8]) -> Result<Vec<u8>, ConnectError> {
    let length = u16::try_from(query.len()).unwrap_or(u16::MAX).to_be_bytes();
    io.write_all(&[&length[..], query].concat()).await?;
    io.flush().await?;
    let mut message = vec![0; usize::from(io.read_u16().await?)];
    io.read_exact(&mut message).await?;
    Ok(message)
}
