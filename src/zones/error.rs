//! Errors in zones, each with its place: file or configuration, line and record.

use std::{fmt, io, path::PathBuf};

use crate::{
    system_error::SystemError,
    wire::{Name, RecordType, name::NameError},
};

/// Where a record was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordPlace {
    /// The zone file, the hosts file, or the configuration file for inline records.
    pub file: PathBuf,
    /// The line in it, from 1; 0 for the file as a whole.
    pub line: usize,
}

impl fmt::Display for RecordPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 { write!(f, ":{}", self.line) } else { Ok(()) }
    }
}

/// An error in a zone, with its place.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {kind}{}", Quoted(record))]
pub struct ZoneError {
    /// The place.
    pub place: RecordPlace,
    /// The error.
    #[source]
    pub kind: ZoneErrorKind,
    /// The record as it was written, on one line; empty if there is none.
    pub record: String,
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", in \"{}\"", self.0) }
    }
}

/// The kinds of errors in zones.
#[derive(Debug, thiserror::Error)]
pub enum ZoneErrorKind {
    /// A file cannot be read.
    #[error("cannot be read: {}", SystemError(.0))]
    Read(#[source] io::Error),
    /// More names or data than a 32-bit number can count.
    #[error("the zone is larger than 4 GiB")]
    TooLarge,
    /// More errors than are reported.
    #[error("{0} more errors are not shown")]
    More(usize),
    /// A zone is declared twice.
    #[error("zone {0} is here twice; keep one of them")]
    Twice(Name),
    /// The text breaks off inside quotes or parentheses.
    #[error("{0} are opened here and not closed")]
    Open(&'static str),
    /// A closing parenthesis without an opening one.
    #[error("a ) without a (")]
    Parenthesis,
    /// A backslash that escapes nothing.
    #[error("an escape that is not \\DDD (000 to 255) or \\X")]
    Escape,
    /// A name that is not valid.
    #[error("\"{text}\" is not a name: {source}")]
    Name {
        /// The name as written.
        text: String,
        /// Why it is not valid.
        source: NameError,
    },
    /// The first record of a file has no owner.
    #[error("no name before it to take the owner from; begin the line with the name")]
    NoOwner,
    /// No TTL, and none to inherit.
    #[error("no TTL here or before; write one, or a $TTL line on top")]
    NoTtl,
    /// A TTL that is not valid.
    #[error("\"{0}\" is not a TTL: seconds up to 2147483647, or like 1h30m")]
    Ttl(String),
    /// A record without a type.
    #[error("no record type")]
    NoType,
    /// A word where a type should be.
    #[error("\"{0}\" is not a record type; unknown types are written TYPE123 \\# LENGTH HEX (RFC 3597)")]
    Type(String),
    /// A class other than IN.
    #[error("class {0} is not supported, zones are of class IN")]
    Class(String),
    /// A type that an unsigned zone cannot have.
    #[error("{0} is not supported; zones are served unsigned, take the file from before signing")]
    Signed(RecordType),
    /// A type that is not data: a query or meta type.
    #[error("{0} is no type of zone data")]
    Meta(RecordType),
    /// A directive that we do not know.
    #[error("{0} is not supported; there are $ORIGIN, $TTL, $INCLUDE and $GENERATE")]
    Directive(String),
    /// More records from `$GENERATE` than a zone may have.
    #[error("$GENERATE makes more than {0} records in this zone")]
    Generated(usize),
    /// A directive with too few or too many words.
    #[error("{0}")]
    Usage(&'static str),
    /// `$INCLUDE` in inline records.
    #[error("$INCLUDE works in zone files only")]
    IncludeInline,
    /// An included file outside the zone file's folder.
    #[error("\"{0}\" is outside the zone file's folder; an included file must lie in it or below")]
    IncludeOutside(String),
    /// An included file that cannot be read.
    #[error("\"{text}\" cannot be read: {}", SystemError(source))]
    Include {
        /// The file as written.
        text: String,
        /// Why it is not valid.
        source: io::Error,
    },
    /// Included files include files, too deep.
    #[error("$INCLUDE is nested deeper than {0}")]
    IncludeDepth(usize),
    /// RDATA that does not fit its type.
    #[error("{rtype}: {what}")]
    Rdata {
        /// The type.
        rtype: RecordType,
        /// What is wrong with it.
        what: String,
    },
    /// An owner outside the zone.
    #[error("{owner} is not in the zone {zone}")]
    OutOfZone {
        /// The owner.
        owner: Name,
        /// The zone.
        zone: Name,
    },
    /// More than one SOA.
    #[error("a second SOA; the first is at {0}")]
    SecondSoa(RecordPlace),
    /// A SOA below the apex.
    #[error("a SOA stands at the zone's own name, {0}, alone")]
    SoaBelow(Name),
    /// A zone file without SOA or NS.
    #[error("zone {zone} has no {rtype} at its own name")]
    Missing {
        /// The zone.
        zone: Name,
        /// What is missing.
        rtype: RecordType,
    },
    /// CNAME beside another type.
    #[error("{0} has a CNAME and other data; a CNAME stands alone (RFC 1034 3.6.2)")]
    CnameAndOther(Name),
    /// Two CNAMEs or two DNAMEs at one name.
    #[error("{owner} has more than one {rtype}")]
    Single {
        /// The owner.
        owner: Name,
        /// The type.
        rtype: RecordType,
    },
    /// A type that a wildcard must not own.
    #[error("a wildcard cannot have {0} (RFC 4592 4)")]
    WildcardOwner(RecordType),
    /// More records of a name and type than one message holds.
    #[error("{owner} {rtype}: more records than a DNS message holds")]
    TooMany {
        /// The owner.
        owner: Name,
        /// The type.
        rtype: RecordType,
    },
    /// A line of a hosts file without a valid address.
    #[error("\"{0}\" is not an address; a line is an address and names")]
    Address(String),
    /// A line of a hosts file with an address of one interface.
    #[error("\"{0}\" is an address of one interface, which DNS cannot say")]
    Scoped(String),
    /// A line of a hosts file with an address but no name.
    #[error("an address without a name")]
    NoHost,
}
