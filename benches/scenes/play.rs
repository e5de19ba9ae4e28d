//! The scenes.

use std::{thread, time::Duration};

use crate::{
    Result, Scene, bad, client,
    figures::{is_late, quantile, share},
    server::{Kind, Running},
    upstream::{Nature, Upstream, addresses, busiest},
    ways,
};

/// New names a second while a server goes silent.
const RATE: u32 = 500;
/// How long all goes well, in seconds of questions.
const BEFORE: usize = 4;
/// How long one is silent.
const AFTER: usize = 10;
/// Warm names.
const WARM: usize = 1_000;
/// What each of two servers takes a second.
const LIMIT: u32 = 1_000;

pub(crate) const fn title(scene: Scene) -> &'static str {
    match scene {
        Scene::Silent => "The busiest of three servers goes silent, 500 new names a second, the ten seconds after",
        Scene::Refused => "Everything cut (port unreachable), 1,000 warm names past their TTL, 500 a second",
        Scene::Mute => "Everything cut (silence), 1,000 warm names past their TTL, 500 a second",
        Scene::Loss => "5 % of datagrams lost at each of two servers, 20,000 new names, 1,000 a second",
        Scene::Rate => "Two servers that drop what is over 1,000 a second, asked 1,900 a second for ten seconds",
        Scene::Ways => {
            "Two tiers in two networks, the way to the first is cut, 500 new names a second, the ten seconds after"
        }
        Scene::Bad => {
            "The busier of two servers misbehaves, 500 new names, 250 a second: how many got the other's answer, and p99"
        }
    }
}

pub(crate) fn head(scene: Scene, servers: &[Kind]) -> String {
    let head = match scene {
        Scene::Silent => {
            "| server | no answer | later than 100 ms | p99 | worst | upstream queries a question: first second | then |\n\
             | --- | --- | --- | --- | --- | --- | --- |"
        }
        Scene::Refused | Scene::Mute => {
            "| server | answered | with EDE 3 | TTL | first | p99 | p99 after the first second |\n\
             | --- | --- | --- | --- | --- | --- | --- |"
        }
        Scene::Loss => {
            "| server | hedging | no answer | p50 | p99 | p99.9 | worst | upstream queries a question |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- |"
        }
        Scene::Rate => "| server | max_qps | answered | p99 | worst |\n| --- | --- | --- | --- | --- |",
        Scene::Ways => ways::HEAD,
        Scene::Bad => return bad::head(servers),
    };
    head.to_owned()
}

/// Plays a scene and gives its lines.
pub(crate) fn rows(scene: Scene, servers: &[Kind]) -> Result<Vec<String>> {
    let mut rows = Vec::new();
    match scene {
        Scene::Silent => {
            for &kind in servers {
                rows.push(silent(kind)?);
            }
        }
        Scene::Refused | Scene::Mute => {
            for &kind in servers {
                rows.push(stale(kind, scene)?);
            }
        }
        Scene::Loss => {
            for hedge in ["on", "off"] {
                rows.push(loss(hedge)?);
            }
        }
        Scene::Rate => {
            for max_qps in [LIMIT, 0] {
                rows.push(rate(max_qps)?);
            }
        }
        Scene::Ways => rows = ways::rows(servers)?,
        Scene::Bad => rows = bad::rows(servers)?,
    }
    Ok(rows)
}

fn three(ttl: u32) -> Result<Vec<Upstream>> {
    (0..3).map(|_| Upstream::start(Nature { ttl, ..Nature::default() })).collect()
}

fn asked(upstreams: &[Upstream]) -> usize {
    upstreams.iter().map(Upstream::asked).sum()
}

fn silent(kind: Kind) -> Result<String> {
    let mut upstreams = three(3600)?;
    let Running { address, .. } = &kind.start(&[addresses(&upstreams)], "")?;
    let rate = usize::try_from(RATE)?;
    let (cut, end) = (BEFORE * rate, (BEFORE + AFTER) * rate);
    let mut counts = Vec::new();
    let fates = client::ask(
        *address,
        end,
        RATE,
        |n| format!("n{n}"),
        |n| {
            if n >= cut && (n - cut) % rate == 0 {
                counts.push(asked(&upstreams));
            }
            if n == cut {
                busiest(&mut upstreams).into_iter().for_each(|upstream| upstream.go_silent());
            }
        },
    )?;
    counts.push(asked(&upstreams));
    let fates = &fates[cut..];
    let a_question = |from: usize, to: usize| (counts[to] - counts[from]) as f64 / (rate * (to - from)) as f64;
    Ok(format!(
        "| {} | {} | {} | {} | {} | {:.3} | {:.3} |",
        kind.name(),
        share(fates, |fate| !fate.is_good()),
        share(fates, is_late),
        quantile(fates, 0.99),
        quantile(fates, 1.0),
        a_question(0, 1),
        a_question(1, AFTER)
    ))
}

fn stale(kind: Kind, scene: Scene) -> Result<String> {
    let mut upstreams = three(2)?;
    let Running { address, .. } = &kind.start(&[addresses(&upstreams)], "")?;
    let name = |n: usize| format!("warm{}", n % WARM);
    client::ask(*address, WARM, 4 * RATE, name, |_| {})?;
    match scene {
        Scene::Mute => upstreams.iter().for_each(Upstream::go_silent),
        _ => upstreams.iter_mut().for_each(Upstream::stop),
    }
    thread::sleep(Duration::from_secs(3));
    let fates = client::ask(*address, 2 * WARM, RATE, name, |_| {})?;
    let mut ttls: Vec<u32> = fates.iter().filter(|fate| fate.is_good()).map(|fate| fate.ttl).collect();
    ttls.sort_unstable();
    ttls.dedup();
    let ttls: Vec<String> = ttls.iter().map(u32::to_string).collect();
    Ok(format!(
        "| {} | {} | {} | {} | {} | {} | {} |",
        kind.name(),
        share(&fates, |fate| fate.is_good()),
        share(&fates, |fate| fate.is_marked_stale),
        ttls.join(", "),
        quantile(&fates[..1], 1.0),
        quantile(&fates, 0.99),
        quantile(&fates[usize::try_from(RATE)?..], 0.99)
    ))
}

fn loss(hedge: &str) -> Result<String> {
    let upstreams = [Upstream::start(Nature::default())?, Upstream::start(Nature::default())?];
    let more = format!("hedge = {}", hedge == "on");
    let Running { address, .. } = &Kind::Tidegate.start(&[addresses(&upstreams)], &more)?;
    // The usual round-trip time is known before anything is lost.
    client::ask(*address, 1_000, 1_000, |n| format!("before{n}"), |_| {})?;
    upstreams.iter().for_each(|upstream| upstream.lose(5));
    let (count, before) = (20_000, asked(&upstreams));
    let fates = client::ask(*address, count, 1_000, |n| format!("n{n}"), |_| {})?;
    Ok(format!(
        "| tidegate | {hedge} | {} | {} | {} | {} | {} | {:.4} |",
        share(&fates, |fate| !fate.is_good()),
        quantile(&fates, 0.5),
        quantile(&fates, 0.99),
        quantile(&fates, 0.999),
        quantile(&fates, 1.0),
        (asked(&upstreams) - before) as f64 / count as f64
    ))
}

fn rate(max_qps: u32) -> Result<String> {
    let upstreams = [Upstream::start(Nature::default())?, Upstream::start(Nature::default())?];
    upstreams.iter().for_each(|upstream| upstream.limit(LIMIT));
    let Running { address, .. } = &Kind::Tidegate.start(&[addresses(&upstreams)], &format!("max_qps = {max_qps}"))?;
    let load = LIMIT * 19 / 10;
    let fates = client::ask(*address, usize::try_from(load)? * 10, load, |n| format!("n{n}"), |_| {})?;
    let limit = if max_qps == 0 { "none".to_owned() } else { max_qps.to_string() };
    Ok(format!(
        "| tidegate | {limit} | {:.3} % | {} | {} |",
        fates.iter().filter(|fate| fate.is_good()).count() as f64 / fates.len() as f64 * 100.0,
        quantile(&fates, 0.99),
        quantile(&fates, 1.0)
    ))
}
