//! The standard process metrics, from `/proc/self`. Values that a sandbox hides are left out.

use std::{fs, time::Duration};

use super::exposition::{Exposition, Seconds};

/// Clock ticks a second in `/proc/self/stat`: USER_HZ is 100 on every architecture that Linux runs on.
const TICKS: u64 = 100;

/// Writes the families. `started` is the wall clock's time of the start.
pub(super) fn encode(exposition: &mut Exposition, started: Duration) {
    if let Some(cpu) = cpu_time() {
        let help = "User and system time spent, in seconds.";
        exposition.counter("process_cpu_seconds_total", help).sample(&[], Seconds(cpu));
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // The listing itself holds one open.
        let open = files.count().saturating_sub(1);
        exposition.gauge("process_open_fds", "Open file descriptors.").sample(&[], open);
    }
    if let Some(most) = most_files() {
        exposition.gauge("process_max_fds", "The limit on open file descriptors.").sample(&[], most);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kibibytes) = field(&status, "VmRSS:") {
        let help = "Resident memory, in bytes.";
        exposition.gauge("process_resident_memory_bytes", help).sample(&[], kibibytes * 1024);
    }
    if let Some(kibibytes) = field(&status, "VmSize:") {
        let help = "Virtual memory, in bytes.";
        exposition.gauge("process_virtual_memory_bytes", help).sample(&[], kibibytes * 1024);
    }
    if let Some(threads) = field(&status, "Threads:") {
        exposition.gauge("process_threads", "Threads.").sample(&[], threads);
    }
    let help = "When the process started, in seconds since 1970.";
    exposition.gauge("process_start_time_seconds", help).sample(&[], Seconds(started));
}

fn cpu_time() -> Option<Duration> {
    ticks(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// utime and stime, the 14th and 15th field of proc_pid_stat(5). The second one is the program's name in parentheses
/// and may hold blanks.
fn ticks(stat: &str) -> Option<Duration> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * (1000 / TICKS)))
}

/// The number in the line `name number …`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn most_files() -> Option<u64> {
    field(&fs::read_to_string("/proc/self/limits").ok()?, "Max open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_moves_no_field() {
        let stat = "7 (a) (b c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5 0 100 0 0";
        assert_eq!(ticks(stat), Some(Duration::from_secs(3)));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn numbers_are_found_by_their_name() {
        let status = "Name:\tVmRSS:\nVmSize:\t  100 kB\nVmRSS:\t   42 kB\n";
        assert_eq!(field(status, "VmRSS:"), Some(42));
        assert_eq!(
            field("Max open files            1024                 524288               files", "Max open files"),
            Some(1024)
        );
        assert_eq!(field(status, "Threads:"), None);
    }
}
