//! Servers that a rule must leave out, because queries to them come back here (see `watch::loops`).

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::{upstream::server::Server, wire::Name};

/// The servers that one rule's queries must not go to.
#[derive(Debug, Default)]
pub struct Marks {
    /// Whether any server is marked; checked before the lock.
    any: AtomicBool,
    servers: Mutex<Vec<Mark>>,
}

#[derive(Debug)]
struct Mark {
    server: u64,
    /// The zones whose queries come back; never empty.
    zones: Vec<Name>,
    is_reported: bool,
}

/// What is left of a server's marks after one loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClearedMark {
    /// The server had no mark for this zone.
    Nothing,
    /// The server still loops in other zones.
    Others,
    /// The server has no marks left and may be asked.
    Server,
}

impl Marks {
    /// Whether any server is marked.
    pub fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Whether this server is marked.
    pub fn has(&self, server: &Server) -> bool {
        self.any() && self.servers.lock().iter().any(|mark| mark.server == server.id())
    }

    pub(crate) fn set(&self, server: u64, zone: &Name) {
        let mut servers = self.servers.lock();
        match servers.iter_mut().find(|mark| mark.server == server) {
            Some(mark) if mark.zones.contains(zone) => {}
            Some(mark) => mark.zones.push(zone.clone()),
            None => servers.push(Mark { server, zones: vec![zone.clone()], is_reported: false }),
        }
        self.any.store(true, Relaxed);
    }

    /// Whether the mark of this server has yet to be logged. True once.
    pub(crate) fn take_unreported(&self, server: u64) -> bool {
        let mut servers = self.servers.lock();
        let mark = servers.iter_mut().find(|mark| mark.server == server);
        mark.is_some_and(|mark| !std::mem::replace(&mut mark.is_reported, true))
    }

    pub(crate) fn clear(&self, server: u64, zone: &Name) -> ClearedMark {
        let mut cleared = ClearedMark::Nothing;
        self.keep(|marked, looping| {
            let is_it = marked == server && looping == zone;
            if is_it {
                cleared = ClearedMark::Server;
            }
            !is_it
        });
        if cleared == ClearedMark::Server && self.servers.lock().iter().any(|mark| mark.server == server) {
            return ClearedMark::Others;
        }
        cleared
    }

    /// Removes the marks for which `is_there` is false.
    pub(crate) fn keep(&self, mut is_there: impl FnMut(u64, &Name) -> bool) {
        let mut servers = self.servers.lock();
        servers.retain_mut(|mark| {
            mark.zones.retain(|zone| is_there(mark.server, zone));
            !mark.zones.is_empty()
        });
        self.any.store(!servers.is_empty(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_stays_marked_until_its_last_loop_ends() {
        let (marks, one, two) = (Marks::default(), "one.example".parse().unwrap(), "two.example".parse().unwrap());
        marks.set(7, &one);
        assert!(marks.take_unreported(7), "the first loop is news");
        marks.set(7, &two);
        marks.set(7, &two);
        assert!(!marks.take_unreported(7) && !marks.take_unreported(8));
        assert_eq!(marks.clear(8, &one), ClearedMark::Nothing);
        assert_eq!(marks.clear(7, &one), ClearedMark::Others);
        assert_eq!(marks.clear(7, &one), ClearedMark::Nothing);
        assert!(marks.any());
        assert_eq!(marks.clear(7, &two), ClearedMark::Server);
        assert!(!marks.any());
        marks.set(7, &one);
        assert!(marks.take_unreported(7), "another loop is news again");
    }
}
