//! `tidegate man`: the manual, generated from the program itself: `tidegate(1)`, `tidegate-VERB(1)` from the verbs'
//! help, `tidegate.toml(5)` from the reference file.

mod program;
mod reference;
mod roff;
mod verb;

use std::{
    fs,
    io::{self, IsTerminal, Write as _},
    path::PathBuf,
    process::{self, Command, Stdio},
};

use super::output::{ERR, OUT};
use crate::{plural::Plural, system_error::SystemError};

/// The date on the pages: that of the commit, or of `SOURCE_DATE_EPOCH`.
const DATE: &str = env!("TIDEGATE_DATE");

/// Which pages, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The page to print: a verb, or tidegate.toml [default: the program's own]
    #[arg(conflicts_with = "into")]
    page: Option<String>,
    /// Writes every page below this folder, such as /usr/local/share/man
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

/// A page of the manual.
struct Page {
    name: String,
    section: u8,
    roff: String,
}

pub(super) fn run(options: &Options, program: &clap::Command) -> i32 {
    let pages = pages(program);
    if let Some(folder) = &options.into {
        return match install(folder, &pages) {
            Ok(()) => {
                writeln!(OUT, "{} in {}", Plural(pages.len(), "page"), folder.display());
                super::OK
            }
            Err(error) => {
                writeln!(
                    ERR,
                    "tidegate: the manual cannot be written below {}: {}",
                    folder.display(),
                    SystemError(&error)
                );
                super::FAILED
            }
        };
    }
    let wanted = options.page.as_deref().unwrap_or("tidegate");
    let page = pages.iter().find(|page| page.name == wanted || page.name.strip_prefix("tidegate-") == Some(wanted));
    let Some(page) = page else {
        let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
        writeln!(ERR, "tidegate: there is no page \"{wanted}\"; there are {}", names.join(", "));
        return super::UNUSABLE;
    };
    show(&page.roff);
    super::OK
}

/// Shows a page with man on a terminal, and prints it unchanged otherwise.
fn show(roff: &str) {
    if io::stdout().is_terminal() && show_by_man(roff).is_ok_and(|status| status.success()) {
        return;
    }
    write!(OUT, "{roff}");
    if io::stdout().is_terminal() {
        writeln!(ERR, "tidegate: this is roff, and no `man -l -` that would show it is here");
    }
}

fn show_by_man(roff: &str) -> io::Result<process::ExitStatus> {
    let mut man = Command::new("man").args(["-l", "-"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    if let Some(mut input) = man.stdin.take() {
        // man's exit status says whether it read everything it wanted.
        input.write_all(roff.as_bytes()).ok();
    }
    man.wait()
}

fn pages(program: &clap::Command) -> Vec<Page> {
    let mut program = program.clone();
    program.build();
    let verbs = program.get_subcommands();
    let page = |name: &str, section, roff| Page { name: name.to_owned(), section, roff };
    let mut pages = vec![page("tidegate", 1, program::page(&program, DATE))];
    pages.extend(verbs.map(|verb| page(&format!("tidegate-{}", verb.get_name()), 1, verb::page(verb, DATE))));
    pages.push(page("tidegate.toml", 5, reference::page(DATE)));
    pages
}

/// Writes `FOLDER/man1/tidegate.1` and so on.
fn install(folder: &std::path::Path, pages: &[Page]) -> io::Result<()> {
    for page in pages {
        let folder = folder.join(format!("man{}", page.section));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{}.{}", page.name, page.section)), &page.roff)?;
    }
    Ok(())
}
