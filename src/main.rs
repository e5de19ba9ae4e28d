//! The program: arguments in, exit code out. The only `process::exit`.

use std::process;

fn main() {
    process::exit(tidegate::cli::run(std::env::args_os()));
}
