//! `serve --takeover`: asks the daemon that runs for its listening sockets, over its control socket.

use std::{
    fs, io,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    client::{self, ClientError},
    control,
};
use crate::{
    admin::control::TakeoverOrder,
    daemon::HandedOver,
    net::socket::{Inherited, receive_descriptors},
    system_error::SystemError,
};

/// How long sockets that were sent already may take to arrive.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeoverError {
    #[error("--takeover asks the daemon that runs over its control socket, and `socket` in [admin] is off")]
    NoSocket,
    #[error("--takeover needs to make a folder beside {socket}: {}", SystemError(.1), socket = .0.display())]
    Folder(PathBuf, #[source] io::Error),
    #[error("--takeover needs a path in UTF-8, and {} is none; choose another `socket` in [admin]", .0.display())]
    NotUtf8(PathBuf),
    #[error(transparent)]
    Daemon(#[from] ClientError),
    #[error("the daemon at {socket} does not hand its sockets over: {1}", socket = .0.display())]
    Refused(PathBuf, String),
    #[error("the sockets of the daemon at {socket} did not arrive: {}", SystemError(.1), socket = .0.display())]
    Receive(PathBuf, #[source] io::Error),
}

/// The listening sockets of the daemon behind `control`; none where no daemon runs, so that a first start is one too.
pub(super) fn ask(control: Option<&Path>) -> Result<Option<HandedOver>, TakeoverError> {
    let control = control.ok_or(TakeoverError::NoSocket)?;
    let explain = |error| TakeoverError::Folder(control.to_owned(), error);
    let folder = control.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // Whole, since the other process may have another working directory.
    let folder = fs::canonicalize(folder).map_err(explain)?;
    // For this user alone: whoever connects says what the sockets are.
    let folder = tempfile::Builder::new().prefix("takeover-").tempdir_in(folder).map_err(explain)?;
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).map_err(explain)?;
    let order = serde_json::to_string(&TakeoverOrder { socket: path.clone() });
    let order = order.map_err(|_| TakeoverError::NotUtf8(path))?;
    let (status, answer) = match client::post_over_socket(control, "/v1/takeover", &order) {
        Err(ClientError::NoSocket(..)) => return Ok(None),
        answered => answered?,
    };
    if status != 200 {
        return Err(TakeoverError::Refused(control.to_owned(), reason(status, &answer)));
    }
    let receive = || {
        // The daemon has connected and sent before it answered.
        listener.set_nonblocking(true)?;
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(RECEIVE_TIMEOUT))?;
        let descriptors = receive_descriptors(&stream)?;
        let named = descriptors.into_iter().map(|descriptor| (descriptor, "takeover".to_owned()));
        Ok(HandedOver { sockets: Inherited::new(named), predecessor: Some(stream) })
    };
    receive().map(Some).map_err(|error| TakeoverError::Receive(control.to_owned(), error))
}

fn reason(status: u16, answer: &str) -> String {
    match (status, control::report(status, answer).lines.into_iter().next()) {
        (404, _) => "it is older than --takeover".to_owned(),
        (_, Some(line)) => line,
        (_, None) => format!("status {status}"),
    }
}
