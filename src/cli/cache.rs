//! `tidegate cache export` and `tidegate cache import`: the cache as a snapshot, so that a new replica starts warm.
//!
//! A snapshot goes through an unnamed temporary file and is read to its end there: a cut or damaged one reaches neither
//! the reader of `export` nor the daemon of `import`. The daemon checks each entry like an answer from a stranger.

use std::{
    fs::File,
    io::{self, BufReader, IsTerminal, Read, Seek},
    path::PathBuf,
};

use super::{
    client::{self, ClientError},
    control,
    output::{ERR, OUT},
};
use crate::{
    cache::snapshot::{SnapshotError, SnapshotReader},
    system_error::SystemError,
};

/// What to do with the cache.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(subcommand)]
    action: CacheCommand,
}

#[derive(Debug, clap::Subcommand)]
enum CacheCommand {
    /// Writes a snapshot of the cache to standard output
    #[command(after_help = "Exit status: 0 done, 1 failed\nExample: tidegate cache export > cache.snapshot")]
    Export {
        /// The daemon's `admin.socket` [env: TIDEGATE_SOCKET]
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        /// The daemon's configuration, which names the socket unless --socket does [default:
        /// /etc/tidegate/tidegate.toml]
        #[arg(long, env = "TIDEGATE_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Adds the entries of a snapshot on standard input to the cache
    #[command(
        after_help = "Entries of rules that are the same here are taken, unless the cache has a fresher answer.\nExit status: 0 done, 1 failed, and the cache is as it was\nExample: tidegate cache import < cache.snapshot"
    )]
    Import(control::Options),
}

/// Why a snapshot could not be transferred.
#[derive(Debug, thiserror::Error)]
enum CacheError {
    #[error(transparent)]
    Socket(#[from] control::SocketError),
    #[error(transparent)]
    Page(#[from] ClientError),
    #[error("a snapshot is not for a terminal; say `tidegate cache export > FILE`")]
    ToTerminal,
    #[error("a snapshot does not come from a terminal; say `tidegate cache import < FILE`")]
    FromTerminal,
    #[error("no room for the snapshot in {folder}: {}", SystemError(.0), folder = std::env::temp_dir().display())]
    Spool(#[source] io::Error),
    #[error("standard input cannot be read: {}", SystemError(.0))]
    Input(#[source] io::Error),
    #[error("the daemon answered with {0}, and no snapshot; is it older than this program?")]
    NoSnapshot(u16),
    #[error("the snapshot is not used: {0}")]
    Damaged(#[from] SnapshotError),
}

pub(super) fn run(options: &Options) -> i32 {
    let done = match &options.action {
        CacheCommand::Export { socket, config } => {
            export(&control::Options { socket: socket.clone(), config: config.clone(), json: false })
        }
        CacheCommand::Import(daemon) => import(daemon),
    };
    match done {
        Ok(verdict) => verdict,
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            super::FAILED
        }
    }
}

fn export(daemon: &control::Options) -> Result<i32, CacheError> {
    if io::stdout().is_terminal() {
        return Err(CacheError::ToTerminal);
    }
    let mut file = tempfile::tempfile().map_err(CacheError::Spool)?;
    let status = client::download(&daemon.socket()?, "/v1/cache", &mut file)?;
    if status != 200 {
        return Err(CacheError::NoSnapshot(status));
    }
    verify(&mut file)?;
    let mut piece = vec![0; 64 << 10];
    loop {
        match file.read(&mut piece).map_err(CacheError::Spool)? {
            0 => return Ok(super::OK),
            count => OUT.write(&piece[..count]),
        }
    }
}

fn import(daemon: &control::Options) -> Result<i32, CacheError> {
    if io::stdin().is_terminal() {
        return Err(CacheError::FromTerminal);
    }
    let mut file = tempfile::tempfile().map_err(CacheError::Spool)?;
    spool(&mut io::stdin().lock(), &mut file)?;
    verify(&mut file)?;
    let (status, answer) = client::upload(&daemon.socket()?, "/v1/cache", &mut file)?;
    control::show(daemon, status, &answer);
    Ok(if status == 200 { super::OK } else { super::FAILED })
}

/// Copies all of standard input, and separates its errors from those of the file.
fn spool(input: &mut impl Read, file: &mut File) -> Result<(), CacheError> {
    let mut piece = vec![0; 64 << 10];
    loop {
        match input.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => io::Write::write_all(file, &piece[..count]).map_err(CacheError::Spool)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CacheError::Input(error)),
        }
    }
}

/// Reads the snapshot to its end, and rewinds the file.
fn verify(file: &mut File) -> Result<(), CacheError> {
    file.rewind().map_err(CacheError::Spool)?;
    SnapshotReader::begin(BufReader::with_capacity(64 << 10, &*file))?.read(|_, _| {})?;
    file.rewind().map_err(CacheError::Spool)
}
