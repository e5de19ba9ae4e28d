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

/// One rule's counters: a cell for each worker, and only that worker writes to it.
#[derive(Debug)]
pub struct RuleCounters {
    cells: Box<[CachePadded<Cell>]>,
}

#[derive(Debug, Default)]
struct Cell {
    queries: Counter,
    violations: [Counter; GuardAction::ALL.len()],
    without_soa: Counter,
}

impl RuleCounters {
    /// Counters for this number of workers.
    pub fn new(workers: usize) -> Self {
        Self { cells: (0..workers).map(|_| CachePadded::default()).collect() }
    }

    fn count(&self, worker: &WorkerCounters, counter: impl FnOnce(&Cell) -> &Counter) {
        if let Some(cell) = self.cells.get(worker.index()) {
            counter(cell).add(1);
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
        self.cells.iter().map(|cell| counter(cell).value()).sum()
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
    rules: Mutex<HashMap<String, Arc<RuleCounters>>>,
}

impl RuleRegistry {
    /// A registry without rules, for this number of workers.
    pub fn new(workers: usize) -> Self {
        Self { workers, rules: Mutex::new(HashMap::new()) }
    }

    /// The counters of the rule with this name, which begin at zero where it is new.
    pub fn of(&self, name: &str) -> Arc<RuleCounters> {
        let mut rules = self.rules.lock();
        Arc::clone(rules.entry_ref(name).or_insert_with(|| Arc::new(RuleCounters::new(self.workers))))
    }

    /// All, in the order of their names.
    pub fn all(&self) -> Vec<(String, Arc<RuleCounters>)> {
        let rules = self.rules.lock();
        let mut all: Vec<_> = rules.iter().map(|(name, rule)| (name.clone(), Arc::clone(rule))).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }
}
