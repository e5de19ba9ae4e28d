//! `tidegate(1)`: the verbs, and what is common to them.

use clap::Command;

use super::roff::Page;

const DESCRIPTION: &str = "\
    `tidegate` is the DNS server of a site that reaches AWS over a private link. It answers the site's clients, forwards AWS \
    names to the addresses of a Route 53 Resolver inbound endpoint, all other names to the site's own DNS, and answers \
    local zones itself. `tidegate serve` is the server; the other verbs prepare, query and control it. Each has `--help`.";

const EXIT: [(&str, &str); 3] = [
    ("0", "Done, and all is well."),
    ("1", "Something went wrong, or a check found something; the verb's page says what."),
    ("2", "The arguments or the configuration are wrong, or an order was refused and nothing has changed."),
];

const OUTPUT: &str = "\
    Results go to standard output, errors to standard error; most verbs take `--json` for scripts. Text is \
    coloured on a terminal only. If the reader of the output is gone, a verb ends silently with its own exit status; \
    any other write error, such as a full disk, is one line on standard error and exit status 1.";

const SIGNALS: [(&str, &str); 4] = [
    (
        "`SIGTERM`, `SIGINT`",
        "Answer what was received, then stop. With `server.lameduck`, first go on answering for that long, with `/readyz` at 503.",
    ),
    ("`SIGHUP`", "Read the configuration again. A file with errors is refused, and the old one stays in force."),
    ("`SIGUSR1`", "Write the cache snapshot and the record of the perimeter, where they are configured."),
    ("`SIGUSR2`", "Write a line about the state of the daemon to the log."),
];

const ENVIRONMENT: [(&str, &str); 4] = [
    (
        "`TIDEGATE_CONFIG`, `TIDEGATE_LISTEN`, `TIDEGATE_AWS`, `TIDEGATE_DEFAULT`, `TIDEGATE_PRIVATE`",
        "The flags of the same names of `tidegate serve`. Flags beat variables, which beat the file.",
    ),
    (
        "`TIDEGATE_ADMIN`, `TIDEGATE_SOCKET`",
        "`--admin` and `--socket` of `tidegate serve`, by which the other verbs also find the daemon.",
    ),
    ("`NO_COLOR`", "If it is set, no output is coloured."),
    ("`NOTIFY_SOCKET`", "Where systemd is told that the daemon is ready, reloads or stops."),
];

const FILES: [(&str, &str); 4] = [
    ("`/etc/tidegate/tidegate.toml`", "The configuration."),
    ("`/run/tidegate/control.sock`", "The control socket, for its owner and group: `admin.socket`."),
    (
        "`/var/lib/tidegate/cache`",
        "The snapshot of the cache that the shipped configuration asks for: `cache.snapshot`.",
    ),
    ("`/etc/systemd/system/tidegate.service`", "The unit; change it with `systemctl edit tidegate`."),
];

/// The page.
pub(super) fn page(program: &Command, date: &str) -> String {
    let about = "the DNS gateway between an on-premises network and AWS private endpoints";
    let mut page = Page::new("tidegate", 1, date, about);
    page.section("SYNOPSIS");
    page.text("`tidegate` VERB [ARGUMENT ...]");
    page.section("DESCRIPTION");
    page.text(DESCRIPTION);
    page.section("VERBS");
    for verb in program.get_subcommands() {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        page.reference(&format!("tidegate-{}", verb.get_name()), 1, &format!("{about}."));
    }
    items(&mut page, "EXIT STATUS", &EXIT);
    page.section("OUTPUT");
    page.text(OUTPUT);
    items(&mut page, "SIGNALS", &SIGNALS);
    items(&mut page, "ENVIRONMENT", &ENVIRONMENT);
    items(&mut page, "FILES", &FILES);
    page.references(&[("tidegate.toml".to_owned(), 5)]);
    page.finish()
}

fn items(page: &mut Page, title: &str, items: &[(&str, &str)]) {
    page.section(title);
    for (head, body) in items {
        page.item(head, body);
    }
}
