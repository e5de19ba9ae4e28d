//! `tidegate top`: what the running daemon is doing, from two samples of the document of `tidegate status`, and the
//! hottest names, clients and failures as `/api/v1/top` has them.
//!
//! On a terminal it redraws the screen; into a pipe it writes one screen after the other, or with `--json` one line
//! each.

mod rates;
mod screen;
mod terminal;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

use self::{rates::Rates, terminal::Terminal};
use super::{
    output::{ERR, OUT, print_json},
    status::{Source, StatusError},
};
use crate::{
    admin::{status::Status, top::Top},
    clock::{self, Moment},
    config::parse_duration,
};

/// What to show, and how often.
#[derive(Debug, clap::Args)]
#[group(id = "top")]
pub(super) struct Options {
    /// Shows it once, after one interval, and ends
    #[arg(long)]
    once: bool,
    /// The time between two looks, such as 500ms or 5s
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,
    #[command(flatten)]
    source: Source,
}

/// The shortest interval: a shorter one would show noise, and load the daemon.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest interval: a longer one would look like a hang.
const LONGEST: Duration = Duration::from_mins(10);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|_| "write it as 500ms, 2s or 1m".to_owned())?;
    let is_sensible = (SHORTEST..=LONGEST).contains(&interval);
    is_sensible.then_some(interval).ok_or_else(|| "it must be from 100ms to 10m".to_owned())
}

/// One sample of the daemon's status.
struct Look {
    at: Moment,
    status: Status,
    top: Top,
}

/// The document of `--json`, one a line.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TopLine<'a> {
    /// The status of the daemon.
    status: &'a Status,
    /// Rates since the sample before.
    rates: &'a Rates,
    /// The hottest names, the busiest clients, and the names that fail most.
    top: &'a Top,
}

impl Look {
    fn take(source: &Source) -> Result<Self, StatusError> {
        let (status, _) = source.status()?;
        let at = Moment::now();
        Ok(Self { at, status, top: source.top()? })
    }

    fn text(&self, rates: &Rates) -> String {
        screen::text(&self.status, rates, &self.top, clock::wall().as_secs())
    }

    fn line<'a>(&'a self, rates: &'a Rates) -> TopLine<'a> {
        TopLine { status: &self.status, rates, top: &self.top }
    }

    fn rates_since(&self, before: &Self) -> Rates {
        Rates::between(&before.status, &self.status, self.at.since(before.at))
    }
}

pub(super) fn run(options: &Options) -> i32 {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            return super::FAILED;
        }
    };
    match runtime.block_on(show(options)) {
        Ok(()) => super::OK,
        // The terminal is restored by now, so the line stays readable.
        Err(error) => {
            writeln!(ERR, "tidegate: {error}");
            super::FAILED
        }
    }
}

async fn show(options: &Options) -> Result<(), StatusError> {
    let mut before = Look::take(&options.source)?;
    let is_drawn = !options.once && !options.source.daemon.json;
    let mut terminal = if is_drawn { Terminal::take() } else { None };
    let mut end = End::watch();
    if let Some(terminal) = &mut terminal {
        terminal.draw(&before.text(&Rates::default()));
    }
    let mut next = Instant::now();
    loop {
        next = (next + options.interval).max(Instant::now());
        if is_over(&mut terminal, &mut end, next).await || OUT.is_closed() {
            return Ok(());
        }
        let look = match (Look::take(&options.source), &mut terminal) {
            (Ok(look), _) => look,
            // Keep trying: somebody who watches a restart sees the daemon come back.
            (Err(error), Some(terminal)) => {
                terminal.draw(&format!("tidegate: {error}\n"));
                continue;
            }
            (Err(error), None) => return Err(error),
        };
        let rates = look.rates_since(&before);
        match &mut terminal {
            Some(terminal) => terminal.draw(&look.text(&rates)),
            None if options.source.daemon.json => print_json(&look.line(&rates)),
            None if options.once => write!(OUT, "{}", look.text(&rates)),
            None => writeln!(OUT, "{}", look.text(&rates)),
        }
        if options.once {
            return Ok(());
        }
        before = look;
    }
}

/// Whether to end before the time of the next sample.
async fn is_over(terminal: &mut Option<Terminal>, end: &mut Option<End>, next: Instant) -> bool {
    let told = async {
        match end {
            Some(end) => end.told().await,
            None => std::future::pending().await,
        }
    };
    let quit = async {
        match terminal {
            Some(terminal) => terminal.quit().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = told => true,
        () = quit => true,
        () = sleep_until(next) => false,
    }
}

/// The signals that end it. If they cannot be caught, they end it all the same.
struct End([tokio::signal::unix::Signal; 3]);

impl End {
    fn watch() -> Option<Self> {
        let catch = |kind| signal(kind).ok();
        Some(Self([catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?, catch(SignalKind::hangup())?]))
    }

    async fn told(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
