//! Arguments to exit code; the only `process::exit`.
fn main() {}
