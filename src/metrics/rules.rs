//! Counters of each rule. They belong to the rule's name and survive a reload.

use std::sync::Arc;

use crossbeam_utils::CachePadded;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::{counter::Counter, worker::WorkerCounters};

/// The guard's action (label `action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardAction {
    /// Only counted.
    Log,
    /// Left addresses out.
    Strip,
    /// Refused the answer.
    Refuse,
}

impl GuardAction {
    /// All, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Log, Self::Strip, Self::Refuse];

    /// The label's value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Strip => "strip",
            Self::Refuse => "refuse",
        }
    }
}

/// How many rules have their counters in one block.
const BLOCK: usize = 64;

/// One rule's counters: a cell for each worker, and only that worker writes to it.
#[derive(Debug, Clone)]
pub struct RuleCounters {
    block: Arc<Block>,
    /// Its place in the block.
    at: u8,
}

/// The counters of some rules. A worker's cells lie together, in cache lines that no other writes to.
#[derive(Debug)]
struct Block {
    workers: Box<[CachePadded<[Cell; BLOCK]>]>,
}

#[derive(Debug, Default)]
struct Cell {
    queries: Counter,
    violations: [Counter; GuardAction::ALL.len()],
    without_soa: Counter,
}

impl Block {
    fn new(workers: usize) -> Self {
        let cells = || CachePadded::new(std::array::from_fn(|_| Cell::default()));
        Self { workers: (0..workers).map(|_| cells()).collect() }
    }
}

impl RuleCounters {
    fn cell<'b>(&self, worker: &'b CachePadded<[Cell; BLOCK]>) -> &'b Cell {
        &worker[usize::from(self.at) % BLOCK]
    }

    fn count(&self, worker: &WorkerCounters, counter: impl FnOnce(&Cell) -> &Counter) {
        if let Some(cells) = self.block.workers.get(worker.index()) {
            counter(self.cell(cells)).add(1);
        }
    }

    /// Counts a query for this rule.
    pub fn asked(&self, worker: &WorkerCounters) {
        self.count(worker, |cell| &cell.queries);
    }

    /// Counts an answer that violated the guard.
    pub fn violated(&self, action: GuardAction, worker: &WorkerCounters) {
        self.count(worker, |cell| &cell.violations[action as usize]);
        worker.violations[action as usize].add(1);
    }

    /// Counts a negative answer without an SOA.
    pub fn without_soa(&self, worker: &WorkerCounters) {
        self.count(worker, |cell| &cell.without_soa);
    }

    fn sum(&self, counter: impl Fn(&Cell) -> &Counter) -> u64 {
        self.block.workers.iter().map(|cells| counter(self.cell(cells)).value()).sum()
    }

    /// Queries so far.
    pub fn queries(&self) -> u64 {
        self.sum(|cell| &cell.queries)
    }

    /// Violations so far that led to this action.
    pub fn violations(&self, action: GuardAction) -> u64 {
        self.sum(|cell| &cell.violations[action as usize])
    }

    /// Negative answers without an SOA so far.
    pub fn negatives_without_soa(&self) -> u64 {
        self.sum(|cell| &cell.without_soa)
    }
}

/// Every rule's counters, by name.
#[derive(Debug)]
pub struct RuleRegistry {
    workers: usize,
    rules: Mutex<Registered>,
}

#[derive(Debug, Default)]
struct Registered {
    by_name: HashMap<Arc<str>, RuleCounters>,
    /// The block that new rules get their counters in, unless it is full.
    block: Option<Arc<Block>>,
}

impl RuleRegistry {
    /// A registry without rules, for this number of workers.
    pub fn new(workers: usize) -> Self {
        Self { workers, rules: Mutex::default() }
    }

    /// The counters of the rule with this name, which begin at zero where it is new.
    pub fn of(&self, name: impl AsRef<str> + Into<Arc<str>>) -> RuleCounters {
        let mut rules = self.rules.lock();
        if let Some(known) = rules.by_name.get(name.as_ref()) {
            return known.clone();
        }
        // Rules are never taken out, so that their number says how full the last block is.
        let at = rules.by_name.len() % BLOCK;
        let block = rules.block.take().filter(|_| at > 0).unwrap_or_else(|| Arc::new(Block::new(self.workers)));
        let counters = RuleCounters { block: Arc::clone(&block), at: u8::try_from(at).unwrap_or_default() };
        rules.block = Some(block);
        rules.by_name.insert(name.into(), counters.clone());
        counters
    }

    /// All, in the order of their names.
    pub fn all(&self) -> Vec<(Arc<str>, RuleCounters)> {
        let rules = self.rules.lock();
        let mut all: Vec<_> = rules.by_name.iter().map(|(name, rule)| (Arc::clone(name), rule.clone())).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// Violations so far under all rules that led to this action.
    pub fn violations(&self, action: GuardAction) -> u64 {
        self.rules.lock().by_name.values().map(|rule| rule.violations(action)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_and_worker_has_a_counter_of_its_own() {
        let registry = RuleRegistry::new(2);
        let workers = [WorkerCounters::new(0), WorkerCounters::new(1)];
        let rules: Vec<RuleCounters> = (0..3 * BLOCK).map(|n| registry.of(format!("rule{n}"))).collect();
        for (n, rule) in rules.iter().enumerate() {
            (0..=n).for_each(|n| rule.asked(&workers[n % 2]));
            rule.violated(GuardAction::Strip, &workers[1]);
        }
        for (n, rule) in rules.iter().enumerate() {
            assert_eq!(rule.queries(), n as u64 + 1);
            let same = registry.of(format!("rule{n}"));
            assert_eq!((same.queries(), same.violations(GuardAction::Strip)), (n as u64 + 1, 1));
        }
        assert_eq!(registry.violations(GuardAction::Strip), 3 * BLOCK as u64);
        assert_eq!(registry.all().len(), 3 * BLOCK);
    }
}
