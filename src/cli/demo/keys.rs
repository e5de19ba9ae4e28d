//! What a person does to the simulated links while the demonstration runs.

use std::{
    io::{self, BufRead},
    slice,
    sync::Arc,
    thread,
};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use super::{
    Stage,
    servers::{Mode, Simulated},
};
use crate::{cli::output::OUT, engine::Engine};

/// Waits for the key that ends it, for Ctrl-C, for SIGTERM, or for nobody to read on.
pub(super) fn until_the_end(stage: &Stage, end: &Arc<Notify>) -> io::Result<()> {
    let keys = Keys { inbound: stage.inbound.clone(), site: stage.site.clone(), engine: Arc::clone(&stage.engine) };
    let ended = Arc::clone(end);
    // It sleeps in a read; the end of the process is its end.
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        if keys.listen() == Wish::End {
            ended.notify_one();
        }
    })?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = end.notified() => {}
        }
        Ok(())
    })
}

struct Keys {
    inbound: [Simulated; 2],
    site: Simulated,
    engine: Arc<Engine>,
}

/// What becomes of the demonstration when there are no more keys.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    End,
    /// Standard input is at its end: only a signal ends it.
    Stay,
}

impl Keys {
    fn listen(&self) -> Wish {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return Wish::Stay };
            match line.trim() {
                "1" => turn(&self.inbound[..1], Mode::Cut),
                "2" => turn(&self.inbound[1..], Mode::Cut),
                "s" => turn(slice::from_ref(&self.site), Mode::Cut),
                "p" => turn(&self.inbound, Mode::Public),
                "?" => self.tell_all(),
                "q" => return Wish::End,
                "" => {}
                other => writeln!(OUT, "there is no key {other:?}; there are 1, 2, s, p, ? and q"),
            }
            if OUT.is_closed() {
                return Wish::End;
            }
        }
        Wish::Stay
    }

    fn tell_all(&self) {
        let snapshot = self.engine.snapshot_owned();
        for simulated in self.inbound.iter().chain([&self.site]) {
            let link = match simulated.mode() {
                Mode::Well => "answers",
                Mode::Cut => "is cut",
                Mode::Public => "answers with public addresses",
            };
            let mut servers = snapshot.groups.iter().flat_map(|group| group.servers());
            let server = servers.find(|server| server.spec().address == simulated.address);
            let state = server.map_or("unknown", |server| server.state().label());
            writeln!(OUT, "{} ({}) {link}; to tidegate it is {state}", simulated.name, simulated.address);
        }
    }
}

/// Brings servers into a mode, or back out of it.
fn turn(servers: &[Simulated], mode: Mode) {
    let mode = if servers.iter().all(|server| server.mode() == mode) { Mode::Well } else { mode };
    for server in servers {
        server.set(mode);
        let does = match mode {
            Mode::Well => "is mended: it answers as it should",
            Mode::Cut => "is cut: it answers nothing",
            Mode::Public => "answers with public addresses",
        };
        writeln!(OUT, "{} ({}) {does}", server.name, server.address);
    }
}
