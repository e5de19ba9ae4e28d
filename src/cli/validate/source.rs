//! The server, asked each question once: hickory's validator and our walk see the same records.
//!
//! Queries have DO, so that signatures come along, and CD, so that a server that validates hands out what it would refuse
//! (RFC 4035 3.2.2).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hickory_net::{DnsHandle, NetError, runtime::TokioRuntimeProvider, xfer::DnsResponseStream};
use hickory_proto::{
    op::{DnsRequest, DnsResponse, Message},
    rr::{Name, RecordType},
    serialize::binary::BinEncodable,
};
use parking_lot::Mutex;

use crate::{
    cli::ask,
    upstream::ServerSpec,
    wire::{self, Class, UpstreamQuery},
};

/// Time to wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Queries for one name: a chain of ten zones takes about thirty.
const MOST: usize = 200;

/// A server and what it has answered so far.
#[derive(Clone)]
pub(super) struct Source(Arc<Inner>);

/// A response, or why there is none.
type Octets = Result<Vec<u8>, String>;

struct Inner {
    server: ServerSpec,
    answers: Mutex<HashMap<(Name, RecordType), Octets>>,
    has_signatures: AtomicBool,
}

impl Source {
    pub(super) fn new(server: ServerSpec) -> Self {
        let (answers, has_signatures) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Inner { server, answers, has_signatures }))
    }

    /// The server's response; an error in words, whose like is not tried again.
    pub(super) fn ask(&self, name: &Name, qtype: RecordType) -> Result<Message, String> {
        let octets = self.octets(name, qtype)?;
        let message = Message::from_vec(&octets).map_err(|error| format!("its response does not parse: {error}"))?;
        let mut records = message.answers.iter().chain(&message.authorities);
        if records.any(|record| record.record_type() == RecordType::RRSIG) {
            self.0.has_signatures.store(true, Relaxed);
        }
        Ok(message)
    }

    /// Whether any response had a signature.
    pub(super) fn has_signatures(&self) -> bool {
        self.0.has_signatures.load(Relaxed)
    }

    /// Queries so far.
    pub(super) fn queries(&self) -> usize {
        self.0.answers.lock().len()
    }

    fn octets(&self, name: &Name, qtype: RecordType) -> Octets {
        let key = (name.clone(), qtype);
        let known = self.0.answers.lock().get(&key).cloned();
        if let Some(answer) = known {
            return answer;
        }
        if self.queries() >= MOST {
            return Err(format!("{MOST} queries were not enough"));
        }
        let answer = self.octets_from_server(name, qtype);
        self.0.answers.lock().insert(key, answer.clone());
        answer
    }

    fn octets_from_server(&self, name: &Name, qtype: RecordType) -> Octets {
        let name = name.to_bytes().map_err(|error| error.to_string())?;
        let name = wire::Name::from_wire(&name).map_err(|error| error.to_string())?;
        let qtype = wire::RecordType(qtype.into());
        let query = UpstreamQuery { name, qtype, qclass: Class::IN, do_bit: true, cd: true };
        let answer = ask::ask(&self.0.server, &query, TIMEOUT).map_err(|error| super::super::with_causes(&error))?;
        Ok(answer.into_message())
    }
}

impl DnsHandle for Source {
    type Response = DnsResponseStream;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let source = self.clone();
        let asked = request.queries.first().map(|query| (query.name().clone(), query.query_type()));
        let answer = async move {
            let (name, qtype) = asked.ok_or_else(|| NetError::from("no question"))?;
            let asking = tokio::task::spawn_blocking(move || source.octets(&name, qtype));
            let octets = asking.await.map_err(|error| NetError::from(error.to_string()))?;
            Ok(DnsResponse::from_buffer(octets.map_err(NetError::from)?)?)
        };
        Box::pin(answer).into()
    }
}
