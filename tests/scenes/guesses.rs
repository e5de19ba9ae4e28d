//! What upstreams see of us and attackers could use: few address-port pairs, renewed one by one, and ports and ids that
//! do not predict the next ones (RFC 5452).

use std::{
    collections::{HashMap, HashSet},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hickory_proto::op::ResponseCode;

use crate::{
    is_soak, soak_seconds,
    support::{
        config::{Config, ONE_PATIENT_TRY},
        now,
        query::Query,
        tidegate::Tidegate,
    },
};

const SOURCE_PORTS: usize = 256;

/// A query as it arrived.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    from: SocketAddr,
    id: u16,
}

/// A server that answers every address query at once and records its source. It parses as little as it can: the
/// scripted upstream cannot keep up with ten thousand a second.
struct Mirror {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a positive time-out");
        let address = socket.local_addr().expect("a bound socket");
        let (seen, stop) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicBool>::default());
        let (into, until) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut message = [0; 512];
            while !until.load(SeqCst) {
                let Ok((length, from)) = socket.recv_from(&mut message) else { continue };
                let Some(reply) = reflect(&mut message, length) else { continue };
                // Of clients: what else is asked, probes for loops, begins with a digit of a tag.
                if let Kind::Address = reply.kind
                    && message[13] == b'n'
                {
                    let id = u16::from_be_bytes([message[0], message[1]]);
                    into.lock().expect("no holder panics").push(Seen { at: now(), from, id });
                }
                drop(socket.send_to(&message[..reply.length], from));
            }
        });
        Self { address, seen, stop, thread: Some(thread) }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no holder panics").clone()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        self.thread.take().map(JoinHandle::join);
    }
}

enum Kind {
    Address,
    Other,
}

struct Reflection {
    kind: Kind,
    length: usize,
}

/// Turns a query into its answer: one address for an address query, no data for any other.
fn reflect(message: &mut [u8; 512], length: usize) -> Option<Reflection> {
    let end = 12 + message.get(12..length)?.iter().position(|&octet| octet == 0)? + 5;
    let kind = if message[end - 4..end] == [0, 1, 0, 1] { Kind::Address } else { Kind::Other };
    message[2..4].copy_from_slice(&[0x81, 0x80]);
    message[6..12].fill(0);
    let Kind::Address = kind else { return Some(Reflection { kind, length: end }) };
    message[7] = 1;
    message[end..end + 16].copy_from_slice(&[0xC0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 10, 0, 0, 1]);
    Some(Reflection { kind, length: end + 16 })
}

/// Ten thousand new names a second, or as many as a build without optimization answers beside other tests.
const NAMES_A_SECOND: u32 = if cfg!(debug_assertions) { 2000 } else { 10_000 };

/// `TIDEGATE_SOAK_SECONDS=130`, in a release build, for all renewals: a port lives a minute or two.
#[test]
#[expect(clippy::print_stdout, reason = "figures for who asks with --nocapture")]
fn few_pairs_are_seen_and_they_are_renewed_one_by_one() {
    let mirrors = [Mirror::start(), Mirror::start()];
    let servers = mirrors.each_ref().map(|mirror| mirror.address.to_string());
    let config = Config::new().servers("site", &servers, "").forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    let answered = new_names(&tidegate, Duration::from_secs(soak_seconds()));
    println!("{} of {} new names answered", answered.good, answered.sent);
    assert!(answered.good * 100 >= answered.sent * 99, "{} of {}", answered.good, answered.sent);

    for (server, mirror) in servers.iter().zip(&mirrors) {
        let seen = mirror.seen();
        let pairs = pairs_of_busiest_minute(&seen);
        let births = births(&seen);
        let first = seen[0].at;
        // Once all are open, a port's place is taken by the next one to two minutes later.
        let renewals: Vec<u64> =
            births.iter().map(|at| at.duration_since(first).as_secs()).filter(|&second| second >= 10).collect();
        let mut by_second = HashMap::<u64, usize>::new();
        renewals.iter().for_each(|&second| *by_second.entry(second).or_default() += 1);
        let most = by_second.values().copied().max().unwrap_or_default();
        let open = tidegate.metric("tidegate_upstream_source_ports", &[("server", server)]);
        println!(
            "{server}: {} queries; {pairs} address-port pairs in the busiest minute, {open} open; {} renewed, at most \
             {most} in one second",
            seen.len(),
            renewals.len()
        );
        assert!(pairs <= 2 * SOURCE_PORTS, "{pairs} pairs in a minute");
        assert!(most <= SOURCE_PORTS / 8, "{most} renewed in one second");
    }
}

struct Answered {
    sent: usize,
    good: usize,
}

/// Asks new names at their rate, whatever comes back, over sockets enough for every worker.
fn new_names(tidegate: &Tidegate, how_long: Duration) -> Answered {
    let sockets: Vec<_> = (0..8).map(|_| tidegate.client().socket()).collect();
    let is_sent = AtomicBool::new(false);
    let receive = |socket: &crate::support::client::Socket| {
        let mut good = 0;
        socket.set_patience(Duration::from_secs(1));
        loop {
            match socket.receive_rcode() {
                Some(rcode) => good += usize::from(rcode == 0),
                None if is_sent.load(SeqCst) => return good,
                None => {}
            }
        }
    };
    thread::scope(|scope| {
        let receivers: Vec<_> = sockets.iter().map(|socket| scope.spawn(|| receive(socket))).collect();
        let start = now();
        let mut sent = 0;
        while start.elapsed() < how_long {
            let due = start.elapsed().as_micros() * u128::from(NAMES_A_SECOND) / 1_000_000;
            while u128::try_from(sent).is_ok_and(|sent| sent < due) {
                sockets[sent % sockets.len()].send(&Query::a(&format!("n{sent}.example.")));
                sent += 1;
            }
            thread::sleep(Duration::from_millis(1));
        }
        is_sent.store(true, SeqCst);
        let good = receivers.into_iter().map(|receiver| receiver.join().expect("it ends")).sum();
        Answered { sent, good }
    })
}

/// When each address-port pair was first seen.
fn births(seen: &[Seen]) -> Vec<Instant> {
    let mut known = HashSet::new();
    seen.iter().filter(|seen| known.insert(seen.from)).map(|seen| seen.at).collect()
}

/// The most address-port pairs within any minute.
fn pairs_of_busiest_minute(seen: &[Seen]) -> usize {
    let minute = Duration::from_secs(60);
    let (mut inside, mut most, mut oldest) = (HashMap::<SocketAddr, usize>::new(), 0, 0);
    for one in seen {
        *inside.entry(one.from).or_default() += 1;
        while one.at - seen[oldest].at > minute {
            let count = inside.get_mut(&seen[oldest].from).expect("it came in");
            *count -= 1;
            if *count == 0 {
                inside.remove(&seen[oldest].from);
            }
            oldest += 1;
        }
        most = most.max(inside.len());
    }
    most
}

/// Fewer say nothing about evenness: eight of each kind are expected.
const ENOUGH: usize = 8 * 256;

/// A hundred thousand misses with `TIDEGATE_SOAK_SECONDS`, else a tenth of that, or what fifty seconds allow. One at a time: questions of one turn of
/// the loop share a port on purpose.
#[test]
#[expect(clippy::print_stdout, reason = "figures for who asks with --nocapture")]
fn neither_port_nor_id_is_predicted_by_the_last() {
    let mirror = Mirror::start();
    let config = Config::new()
        .section("server", "workers = 1")
        .servers("site", &[mirror.address.to_string()], ONE_PATIENT_TRY)
        .forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    ask_one_by_one(&tidegate, if is_soak() { 100_000 } else { 10_000 });
    let mut seen = mirror.seen();
    // Before the first port is renewed; the others have had as long a life.
    let first = seen[0].at;
    seen.retain(|seen| seen.at - first < Duration::from_secs(55));
    println!("{} misses", seen.len());
    assert!(seen.len() >= ENOUGH, "chi-square over 256 kinds wants some of each");

    // As they were opened, and by number: places in the order of their opening would grow with time.
    let mut known = HashSet::new();
    let ports: Vec<u16> = seen.iter().map(|seen| seen.from.port()).filter(|&port| known.insert(port)).collect();
    let mut by_number = ports.clone();
    by_number.sort_unstable();
    let place = |seen: &Seen| by_number.binary_search(&seen.from.port()).expect("a known port");
    let places: Vec<usize> = seen.iter().map(place).collect();
    let ids: Vec<usize> = seen.iter().map(|seen| usize::from(seen.id)).collect();
    let count = ports.len();
    // The worker's share; the prober has the rest.
    assert!((SOURCE_PORTS / 2..=SOURCE_PORTS).contains(&count), "{count} ports");

    let steps = |values: &[usize], of: usize| -> Vec<usize> {
        values.windows(2).map(|pair| (pair[1] + of - pair[0]) % of).collect()
    };
    let high = |values: &[usize]| values.iter().map(|value| value >> 8).collect::<Vec<_>>();
    let low = |values: &[usize]| values.iter().map(|value| value & 0xFF).collect::<Vec<_>>();
    is_even("ports", &places, count);
    is_even("steps between ports", &steps(&places, count), count);
    is_even("upper octets of ids", &high(&ids), 256);
    is_even("lower octets of ids", &low(&ids), 256);
    is_even("upper octets of steps between ids", &high(&steps(&ids, 65_536)), 256);
    is_even("lower octets of steps between ids", &low(&steps(&ids, 65_536)), 256);
    // Pairs of this query's number and the next one's, sixteen parts each.
    let pairs = |this: &[usize], next: &[usize]| -> Vec<usize> {
        this.iter().zip(next).map(|(this, next)| this % 16 * 16 + next % 16).collect()
    };
    let whole = count / 16 * 16;
    let pairs_of_ports: Vec<usize> = places
        .windows(2)
        .filter(|pair| pair[0] < whole && pair[1] < whole)
        .map(|pair| pair[0] % 16 * 16 + pair[1] % 16)
        .collect();
    is_even("pairs of ports", &pairs_of_ports, 256);
    is_even("pairs of ids", &pairs(&ids, &ids[1..]), 256);
    let ids_at_whole: Vec<usize> = places
        .iter()
        .zip(&ids)
        .filter(|(place, _)| **place < whole)
        .map(|(place, id)| place % 16 * 16 + id % 16)
        .collect();
    is_even("ports with their ids", &ids_at_whole, 256);
    is_uncorrelated("ports", &places);
    is_uncorrelated("ids", &ids);
    // The numbers of the ports themselves, in the order in which they were opened.
    is_uncorrelated("numbers of new ports", &ports.iter().map(|&port| usize::from(port)).collect::<Vec<_>>());
    let near = ports.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 256).count();
    assert!(near < count / 8, "{near} of {count} new ports are near the last");
}

/// Asks so many new names; without `TIDEGATE_SOAK_SECONDS` as many as a busy machine allows before the first port is renewed.
fn ask_one_by_one(tidegate: &Tidegate, misses: usize) {
    let socket = tidegate.client().socket();
    let start = now();
    for number in 0..misses {
        if !is_soak() && start.elapsed() > Duration::from_secs(50) {
            return;
        }
        socket.send(&Query::a(&format!("n{number}.example.")));
        assert_eq!(socket.receive_rcode(), Some(ResponseCode::NoError.low()));
    }
}

/// Pearson's chi-square over `kinds` that should be equally frequent.
#[track_caller]
#[expect(clippy::print_stdout, reason = "figures for who asks with --nocapture")]
fn is_even(what: &str, values: &[usize], kinds: usize) {
    let mut counts = vec![0_u32; kinds];
    values.iter().for_each(|&value| counts[value] += 1);
    let expected = values.len() as f64 / kinds as f64;
    let chi_square: f64 = counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
    let deviation = as_normal(chi_square, kinds - 1);
    println!("{what}: chi-square {chi_square:.1} at {} degrees of freedom, {deviation:+.2} deviations", kinds - 1);
    // Once in a million runs by chance.
    assert!(deviation < 4.753, "{what}: chi-square {chi_square:.1} at {} degrees of freedom", kinds - 1);
}

/// Where a chi-square lies on the normal distribution (Wilson and Hilferty 1931).
fn as_normal(chi_square: f64, degrees: usize) -> f64 {
    let ninth = 2.0 / (9.0 * degrees as f64);
    ((chi_square / degrees as f64).cbrt() - (1.0 - ninth)) / ninth.sqrt()
}

/// Pearson's correlation of each value with the next one, which chance leaves within a few times 1/√n.
#[track_caller]
#[expect(clippy::print_stdout, reason = "figures for who asks with --nocapture")]
fn is_uncorrelated(what: &str, values: &[usize]) {
    let values: Vec<f64> = values.iter().map(|&value| value as f64).collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let covariance: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    let deviation = covariance / variance * n.sqrt();
    println!("{what}: serial correlation {:+.4}, {deviation:+.2} deviations", covariance / variance);
    assert!(deviation.abs() < 4.9, "{what}: {:+.4}", covariance / variance);
}

#[test]
fn the_randomness_check_detects_predictable_numbers() {
    // 124.3 at 100 degrees of freedom is exceeded once in twenty times, 1.645 deviations.
    assert!((as_normal(124.342, 100) - 1.645).abs() < 0.01);
    let counting: Vec<usize> = (0..10_000).map(|number| number * 7 % 65_536).collect();
    let steps: Vec<usize> = counting.windows(2).map(|pair| ((pair[1] + 65_536 - pair[0]) % 65_536) >> 8).collect();
    for (what, values) in [("steps of a counter", steps), ("a loaded die", vec![3; 600])] {
        assert!(std::panic::catch_unwind(|| is_even(what, &values, 256)).is_err(), "{what}");
    }
    assert!(std::panic::catch_unwind(|| is_uncorrelated("a counter", &counting)).is_err());
}
