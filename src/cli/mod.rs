//! The verbs of the command line, one file each. Results go to standard output, errors to standard error.

mod ask;
mod cache;
mod check;
mod client;
mod control;
mod demo;
mod discover;
pub mod doctor;
mod duration;
mod explain;
mod import;
mod man;
mod output;
mod perimeter;
mod perimeter_report;
mod presets;
mod query;
mod schema;
mod serve;
mod status;
mod takeover;
mod test;
mod top;
mod validate;
mod version;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches as _, Parser, Subcommand};
use rand::{TryRng, rngs::SysRng};

use self::output::{ERR, OUT, Stream};
use crate::system_error::SystemError;

/// Success.
const OK: i32 = 0;
/// Something other than the configuration or the arguments failed.
const FAILED: i32 = 1;
/// The configuration or the arguments are wrong.
const UNUSABLE: i32 = 2;

/// The start of the line with exit codes in a verb's help; the manual makes it a section.
const EXIT: &str = "Exit status: ";
/// The start of the line with an example.
const EXAMPLE: &str = "Example: ";

/// The DNS gateway between an on-premises network and AWS private endpoints.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, disable_help_subcommand = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs the server in the foreground
    #[command(
        after_help = "Exit status: 0 stopped when told to, 1 failed, 2 the configuration or an argument is wrong\nExample: tidegate serve --listen 127.0.0.1:53 --aws 10.20.1.10,10.20.2.10 --private 10.20.0.0/16 --default system"
    )]
    Serve(serve::Options),
    /// Checks a configuration: prints every problem, and its routing table
    #[command(
        after_help = "Exit status: 0 the configuration can be used, 2 it cannot\nExample: tidegate check /etc/tidegate/tidegate.toml"
    )]
    Check(check::Options),
    /// Runs a demonstration on this machine, with simulated servers
    #[command(
        after_help = "Exit status: 0 ended when told to, or every scene went as it should; 1 one did not\nExample: tidegate demo --script"
    )]
    Demo(demo::Options),
    /// Asks a server for a name, or for the name of an address
    #[command(
        override_usage = "tidegate query [OPTIONS] NAME [TYPE]... [@SERVER]",
        after_help = "Exit status: 0 answered (NXDOMAIN is an answer), 1 SERVFAIL, REFUSED or another error, 2 no answer; with --validate 0 secure or insecure, 1 bogus, 2 indeterminate; of several the highest\nExample: tidegate query s3.eu-west-1.amazonaws.com A AAAA @127.0.0.1"
    )]
    Query(query::Options),
    /// Explains what the running daemon, or a configuration, would do with a query, and why
    #[command(
        after_help = "Exit status: 0 explained, 1 no daemon was reached, 2 the configuration or an argument is wrong\nExample: tidegate explain s3.eu-west-1.amazonaws.com A --client 10.1.2.3 --address 52.218.1.1"
    )]
    Explain(explain::Options),
    /// Tests a configuration, or the running daemon, against expectations
    #[command(
        after_help = "Exit status: 0 everything is as expected, 1 something is not, or no daemon was reached; 2 a file cannot be used\nExample: tidegate test expectations.toml --config /etc/tidegate/tidegate.toml --junit results.xml"
    )]
    Test(test::Options),
    /// Turns the addresses of a Route 53 inbound endpoint into an [upstream] table
    #[command(
        after_help = "Exit status: 0 done, 1 nothing was found, or the file could not be changed or brought into force\nExample: aws route53resolver list-resolver-endpoint-ip-addresses --resolver-endpoint-id \
                            rslvr-in-1234 | tidegate discover --write /etc/tidegate/tidegate.toml"
    )]
    Discover(discover::Options),
    /// Turns another server's configuration into a tidegate.toml, and says what it could not carry over
    #[command(
        after_help = "Exit status: 0 all of it, 1 partly: what is missing is named with file and line, 2 nothing was imported\nExample: tidegate import /etc/unbound/unbound.conf --output /etc/tidegate"
    )]
    Import(import::Options),
    /// Reports which AWS names were asked for, and which of them are public
    #[command(
        after_help = "Exit status: 0 nothing leaked, 1 something did, or no daemon answered, 2 an argument is wrong\nExample: tidegate perimeter --json"
    )]
    Perimeter(perimeter::Options),
    /// Shows the running daemon at a glance: what is wrong, groups, servers, queries
    #[command(
        after_help = "Exit status: 0 all is well, 1 something is wrong, or no daemon was reached\nExample: tidegate status"
    )]
    Status(status::Options),
    /// Shows what the running daemon does now, and refreshes: queries a second, servers, latency
    #[command(
        after_help = "On a terminal, q or ^C ends it. With --json a line each time.\nExit status: 0 ended when told to, 1 no daemon was reached\nExample: tidegate top --interval 1s"
    )]
    Top(top::Options),
    /// Checks a site from the inside: what is wrong, what it means, and what to do
    #[command(
        after_help = "Takes about ten seconds at the most, and changes nothing.\nExit status: 0 nothing has to be done, 1 something has, 2 the configuration or an argument is wrong\nExample: tidegate doctor sts.eu-west-1.amazonaws.com"
    )]
    Doctor(doctor::Options),
    /// Makes the running daemon reload its configuration, and waits for the verdict
    #[command(
        after_help = "Exit status: 0 done, 1 no daemon was reached, 2 refused, and the old configuration stays in force\nExample: tidegate reload"
    )]
    Reload(control::Options),
    /// Takes an upstream server out of service
    #[command(
        after_help = "Exit status: 0 done, 1 no daemon was reached, 2 refused, and nothing has changed\nExample: tidegate drain 10.20.1.10"
    )]
    Drain(control::ServerArgument),
    /// Puts a drained server back into service
    #[command(
        after_help = "Exit status: 0 done, 1 no daemon was reached, 2 refused, and nothing has changed\nExample: tidegate undrain vpc/10.20.1.10"
    )]
    Undrain(control::ServerArgument),
    /// Removes answers from the cache
    #[command(
        after_help = "Exit status: 0 done, 1 no daemon was reached, 2 refused, and nothing has changed\nExample: tidegate flush --zone amazonaws.com"
    )]
    Flush(control::FlushArguments),
    /// Writes the running daemon's cache to standard output, or takes one from standard input
    #[command(
        after_help = "Exit status: 0 done, 1 no daemon was reached, or the snapshot is damaged and nothing has changed\nExample: tidegate cache export | ssh replica tidegate cache import"
    )]
    Cache(cache::Options),
    /// Changes the level of the running daemon's log, until it restarts, or a reload changes `log.level`
    #[command(
        after_help = "Exit status: 0 done, 1 no daemon was reached, 2 refused, and nothing has changed\nExample: tidegate log debug"
    )]
    Log(control::Log),
    /// Prints the AWS name families and what each is for
    #[command(after_help = "Exit status: 0\nExample: tidegate presets")]
    Presets(presets::Options),
    /// Prints the JSON Schema of the configuration file, for editors, or of a document of the API
    #[command(
        after_help = "Exit status: 0 printed, 2 there is no such document\nExample: tidegate schema > /etc/tidegate/tidegate.schema.json"
    )]
    Schema(schema::Options),
    /// Prints version, commit and features
    #[command(after_help = "Exit status: 0\nExample: tidegate version --json")]
    Version(version::Options),
    /// Prints completions for a shell
    #[command(
        after_help = "Exit status: 0\nExample: tidegate completions bash > /usr/share/bash-completion/completions/tidegate"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints a page of the manual, or installs all of them
    #[command(
        after_help = "Exit status: 0 done, 1 a page could not be written, 2 there is no such page\nExample: tidegate man --into /usr/local/share/man"
    )]
    Man(man::Options),
}

/// The command line as it is declared, for programs that print or check it.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the program with these arguments, starting with its name, and returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> i32 {
    let mut command = without_empty_variables(command());
    let parsed = command.try_get_matches_from_mut(asking_for_help(arguments));
    let verdict = match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => run_verb(arguments.verb),
        Err(error) => {
            let error = error.format(&mut command);
            // Requested help goes to standard output, a mistake to standard error.
            print_styled(if error.use_stderr() { &ERR } else { &OUT }, &error.render());
            error.exit_code()
        }
    };
    output::finish(verdict)
}

/// `tidegate help VERB`, which many programs have, is `tidegate VERB --help`.
fn asking_for_help(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|verb| verb == "help") {
        arguments.remove(1);
        arguments.push("--help".into());
    }
    arguments
}

/// The command line, with environment variables that are empty counted as unset: manifests and unit files write them so.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let unset = |argument: clap::Arg| match argument.get_env().map(std::env::var_os) {
        Some(Some(value)) if value.is_empty() => argument.env(None::<&'static str>),
        _ => argument,
    };
    command.mut_args(unset).mut_subcommands(without_empty_variables)
}

fn run_verb(verb: Verb) -> i32 {
    let is_text_alone =
        matches!(verb, Verb::Presets(_) | Verb::Schema(_) | Verb::Version(_) | Verb::Completions { .. } | Verb::Man(_));
    if !is_text_alone && let Err(error) = SysRng.try_next_u64() {
        // A statically linked program finds no getrandom(2) in its C library, and reads the device.
        writeln!(ERR, "tidegate: no random numbers from the system: {error}; is /dev/urandom there? Mount /dev");
        return FAILED;
    }
    match verb {
        Verb::Serve(options) => serve::run(&options),
        Verb::Check(options) => check::run(&options),
        Verb::Demo(options) => demo::run(&options),
        Verb::Query(options) => query::run(&options),
        Verb::Explain(options) => explain::run(&options),
        Verb::Test(options) => test::run(&options),
        Verb::Discover(options) => discover::run(&options),
        Verb::Import(options) => import::run(&options),
        Verb::Perimeter(options) => perimeter::run(&options),
        Verb::Status(options) => status::run(&options),
        Verb::Top(options) => top::run(&options),
        Verb::Doctor(options) => doctor::run(&options),
        Verb::Reload(options) => control::reload(&options),
        Verb::Drain(server) => control::drain(&server),
        Verb::Undrain(server) => control::undrain(&server),
        Verb::Flush(flush) => control::flush(&flush),
        Verb::Cache(options) => cache::run(&options),
        Verb::Log(log) => control::log(&log),
        Verb::Presets(options) => presets::run(&options),
        Verb::Schema(options) => schema::run(&options),
        Verb::Version(options) => version::run(&options),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), "tidegate", &mut script);
            OUT.write(&script);
            OK
        }
        Verb::Man(options) => man::run(&options, &command()),
    }
}

/// An environment variable; none if it is unset or empty.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn print_styled(stream: &Stream, text: &clap::builder::StyledStr) {
    if stream.has_colour() {
        write!(stream, "{}", text.ansi());
    } else {
        write!(stream, "{text}");
    }
}

/// An error with its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |line, cause| match cause.downcast_ref() {
        Some(error) => format!("{line}: {}", SystemError(error)),
        None => format!("{line}: {cause}"),
    })
}
