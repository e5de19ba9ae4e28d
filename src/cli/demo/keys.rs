//! Keys that control the simulated links while the demo runs.

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
    Demo,
    servers::{Mode, Simulated},
};
use crate::{cli::output::OUT, engine::Engine};

/// Waits for the key that ends the demo, for Ctrl-C, for SIGTERM, or until nobody reads the output.
pub(super) fn wait_for_end(demo: &Demo, end: &Arc<Notify>) -> io::Result<()> {
    let keys = Keys { inbound: demo.inbound.clone(), site: demo.site.clone(), engine: Arc::clone(&demo.engine) };
    let ended = Arc::clone(end);
    // The thread blocks in a read until the process ends.
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        if keys.listen() == KeysEnd::End {
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

/// How the demo goes on after the last key.
#[derive(Debug, PartialEq, Eq)]
enum KeysEnd {
    End,
    /// Standard input has ended: only a signal ends the demo.
    Stay,
}

impl Keys {
    fn listen(&self) -> KeysEnd {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return KeysEnd::Stay };
            match line.trim() {
                "1" => toggle(&self.inbound[..1], Mode::Cut),
                "2" => toggle(&self.inbound[1..], Mode::Cut),
                "s" => toggle(slice::from_ref(&self.site), Mode::Cut),
                "p" => toggle(&self.inbound, Mode::Public),
                "?" => self.print_states(),
                "q" => return KeysEnd::End,
                "" => {}
                other => writeln!(OUT, "there is no key \"{}\"; there are 1, 2, s, p, ? and q", other.escape_debug()),
            }
            if OUT.is_closed() {
                return KeysEnd::End;
            }
        }
        KeysEnd::Stay
    }

    fn print_states(&self) {
        let snapshot = self.engine.snapshot_owned();
        for simulated in self.inbound.iter().chain([&self.site]) {
            let link = match simulated.mode() {
                Mode::Normal => "answers",
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

/// Switches servers into a mode, or back to normal.
fn toggle(servers: &[Simulated], mode: Mode) {
    let mode = if servers.iter().all(|server| server.mode() == mode) { Mode::Normal } else { mode };
    for server in servers {
        server.set(mode);
        let does = match mode {
            Mode::Normal => "is mended: it answers as it should",
            Mode::Cut => "is cut: it answers nothing",
            Mode::Public => "answers with public addresses",
        };
        writeln!(OUT, "{} ({}) {does}", server.name, server.address);
    }
}
