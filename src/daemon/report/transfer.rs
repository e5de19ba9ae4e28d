//! The cache as a whole, for `tidegate cache export` and `import`.

use std::sync::Arc;

use tracing::info;

use crate::{
    admin::{
        CacheTransfer,
        control::{OrderFacts, OrderReport},
    },
    clock::{self, Moment},
    engine::Engine,
    plural::Plural,
};

/// Room in a snapshot for its header, ages and lengths, besides what the cache holds.
const BESIDE: usize = 1 << 20;

/// Access to this engine's cache.
pub(super) fn of(engine: &Arc<Engine>) -> CacheTransfer {
    let (reading, writing) = (Arc::clone(engine), Arc::clone(engine));
    CacheTransfer {
        export: Arc::new(move |out| {
            let (_, entries) = reading.save(out, Moment::now(), clock::wall().as_secs())?;
            info!(entries, "the cache was exported: {}", Plural(entries, "entry"));
            Ok(())
        }),
        import: Arc::new(move |octets| match writing.import(octets, Moment::now(), clock::wall().as_secs()) {
            Ok(taken) => {
                let (entries, left_out, age) = (taken.entries, taken.left_out, taken.age);
                let line =
                    format!("{} taken, {left_out} left out; the snapshot is {age} s old", Plural(entries, "entry"));
                info!(entries, left_out, age, "a cache snapshot was imported: {line}");
                let (entries, left_out, age) = (Some(entries), Some(left_out), Some(age));
                let facts = OrderFacts { entries, left_out, age, ..OrderFacts::default() };
                Ok(OrderReport::new(vec![line]).with(facts))
            }
            Err(error) => Err(OrderReport::new(vec![format!("the snapshot is not used: {error}")])),
        }),
        limit: match engine.cache.stats().capacity {
            0 => 0,
            capacity => capacity.saturating_add(BESIDE),
        },
    }
}
