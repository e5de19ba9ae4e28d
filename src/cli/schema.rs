//! `tidegate schema`.

use super::output::OUT;
use crate::config;

pub(super) fn run() -> i32 {
    writeln!(OUT, "{:#}", config::schema());
    super::OK
}
