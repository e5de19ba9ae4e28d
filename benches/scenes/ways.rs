//! Two tiers in two networks; the way to the first is cut, and stays so.

use std::net::Ipv4Addr;

use crate::{
    Result, client,
    client::Fate,
    figures::{is_late, quantile, share},
    networks::Network,
    server::{Kind, Running},
    upstream::Nature,
};

pub(crate) const HEAD: &str = "| the first way | server | no answer | later than 100 ms | p99 | worst | last question it was felt at |\n\
                               | --- | --- | --- | --- | --- | --- | --- |";

/// New names a second.
const RATE: u32 = 500;
/// How long all goes well, in seconds of questions.
const BEFORE: usize = 4;
/// How long the way is cut.
const AFTER: usize = 10;

/// What happens to the way.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// The link is down at our end: its routes are gone.
    Down,
    /// Every datagram is dropped at the far end, going and coming.
    Silent,
}

impl Cut {
    const fn name(self) -> &'static str {
        match self {
            Self::Down => "link down",
            Self::Silent => "silent",
        }
    }

    fn apply(self, network: &Network) -> Result<()> {
        match self {
            Self::Down => network.take_down(),
            Self::Silent => network.silence(),
        }
    }
}

pub(crate) fn rows(servers: &[Kind]) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    for cut in [Cut::Down, Cut::Silent] {
        for &kind in servers {
            rows.push(row(kind, cut)?);
        }
    }
    Ok(rows)
}

fn row(kind: Kind, cut: Cut) -> Result<String> {
    let networks = [
        Network::behind("direct", "10.91.0.1/24", "10.91.0.2/24")?,
        Network::behind("vpn", "10.92.0.1/24", "10.92.0.2/24")?,
    ];
    let tier = |at: usize, address: &str, last: u8| {
        networks[at].upstream(address, Nature { address: Ipv4Addr::new(10, 0, 0, last), ..Nature::default() })
    };
    let upstreams = [tier(0, "10.91.0.2:53", 1)?, tier(1, "10.92.0.2:53", 2)?];
    let tiers = upstreams.each_ref().map(|upstream| vec![upstream.address]);
    let Running { address, .. } = &kind.start(&tiers, "")?;
    let rate = usize::try_from(RATE)?;
    let from = BEFORE * rate;
    let mut outcome = Ok(());
    let fates = client::ask(
        *address,
        from + AFTER * rate,
        RATE,
        |n| format!("n{n}"),
        |n| {
            if n == from {
                outcome = cut.apply(&networks[0]);
            }
        },
    )?;
    outcome?;
    let fates = &fates[from..];
    Ok(format!(
        "| {} | {} | {} | {} | {} | {} | {} |",
        cut.name(),
        kind.name(),
        share(fates, |fate| !fate.is_good()),
        share(fates, is_late),
        quantile(fates, 0.99),
        quantile(fates, 1.0),
        last_felt(fates)
    ))
}

/// When the last question was asked, counted from the cut, whose answer was late or none: the second tier has taken over.
fn last_felt(fates: &[Fate]) -> String {
    let last = fates.iter().rposition(|fate| is_late(fate) || !fate.is_good());
    last.map_or_else(|| "none".to_owned(), |n| format!("after {:.2} s", n as f64 / f64::from(RATE)))
}
