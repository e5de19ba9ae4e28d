//! Messages as upstreams send them: a model to expect, and octets with compression and letter case drawn at random,
//! written by code that shares nothing with the wire room.

use std::collections::{BTreeSet, HashMap};

use proptest::{collection::vec, prelude::*, sample::select};
use tidegate::wire::{Class, Name, RecordType, UpstreamQuery};

pub(crate) type Labels = Vec<Vec<u8>>;

/// A piece of RDATA.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Octets(Vec<u8>),
    Name(Labels),
}

/// A record as the model has it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// 0 answer, 1 authority, 2 additional.
    pub(crate) section: usize,
    pub(crate) owner: Labels,
    pub(crate) rtype: RecordType,
    pub(crate) class: Class,
    pub(crate) ttl: u32,
    pub(crate) rdata: Vec<Part>,
    /// Whether it must be in what is relayed.
    pub(crate) stays: bool,
}

/// A record for comparing: section, owner, type, class, TTL, RDATA; names and RDATA without compression, in lower case.
pub(crate) type Line = (usize, Vec<u8>, u16, u16, u32, Vec<u8>);

impl Entry {
    pub(crate) fn line(&self) -> Line {
        let mut rdata = Vec::new();
        for part in &self.rdata {
            match part {
                Part::Octets(octets) => rdata.extend_from_slice(octets),
                Part::Name(labels) => rdata.extend(wire(labels)),
            }
        }
        // With the highest bit a TTL is positive and too large (RFC 8767 4).
        let ttl = self.ttl.min(0x7fff_ffff);
        let owner = wire(&self.owner).to_ascii_lowercase();
        (self.section, owner, self.rtype.0, self.class.0, ttl, rdata.to_ascii_lowercase())
    }
}

/// A whole response.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) query: UpstreamQuery,
    pub(crate) entries: Vec<Entry>,
    pub(crate) has_opt: bool,
    /// How long the chain is.
    pub(crate) links: usize,
    /// Whether there is data at its end.
    pub(crate) has_data: bool,
    pub(crate) octets: Vec<u8>,
}

impl Scene {
    pub(crate) fn expected(&self) -> BTreeSet<Line> {
        self.entries.iter().filter(|entry| entry.stays).map(Entry::line).collect()
    }
}

pub(crate) const ID: u16 = 0x4d2;

pub(crate) fn wire(labels: &Labels) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in labels {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend_from_slice(label);
    }
    wire.push(0);
    wire
}

fn label() -> impl Strategy<Value = Vec<u8>> {
    let known = ["www", "a", "B", "Example", "com", "s3", "VPCE-0a", "dots.in", "xn--p1ai"];
    prop_oneof![
        8 => select(known.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..20),
        1 => Just(vec![b'l'; 63]),
    ]
}

fn labels() -> impl Strategy<Value = Labels> {
    vec(label(), 0..4)
}

fn name_below(last: &'static str) -> impl Strategy<Value = Labels> {
    vec(label(), 0..3).prop_map(move |mut labels| {
        labels.push(last.as_bytes().to_vec());
        labels
    })
}

/// Types with a shape of their own, and one that nobody knows.
const TYPES: [u16; 31] = [
    1, 28, 2, 12, 15, 33, 16, 6, 35, 17, 18, 21, 26, 36, 65, 64, 52, 43, 13, 14, 39, 46, 47, 257, 3, 4, 7, 8, 9, 99,
    65280,
];

/// RDATA of a type, well formed.
fn rdata(rtype: u16) -> BoxedStrategy<Vec<Part>> {
    use Part::{Name, Octets};
    let octets = |count: usize| vec(any::<u8>(), count..=count).prop_map(Octets);
    let rest = || vec(any::<u8>(), 1..40).prop_map(Octets);
    let text =
        || vec(any::<u8>(), 0..20).prop_map(|text| [&[u8::try_from(text.len()).unwrap()], &text[..]].concat()).boxed();
    let one = || labels().prop_map(Name);
    match rtype {
        1 => octets(4).prop_map(|a| vec![a]).boxed(),
        28 => octets(16).prop_map(|a| vec![a]).boxed(),
        2..=4 | 7..=9 | 12 | 39 => one().prop_map(|a| vec![a]).boxed(),
        15 | 18 | 21 | 36 => (octets(2), one()).prop_map(|(a, b)| vec![a, b]).boxed(),
        26 => (octets(2), one(), one()).prop_map(|(a, b, c)| vec![a, b, c]).boxed(),
        33 => (octets(6), one()).prop_map(|(a, b)| vec![a, b]).boxed(),
        14 | 17 => (one(), one()).prop_map(|(a, b)| vec![a, b]).boxed(),
        6 => (one(), one(), octets(20)).prop_map(|(a, b, c)| vec![a, b, c]).boxed(),
        16 | 99 => vec(text(), 1..4).prop_map(|texts| vec![Octets(texts.concat())]).boxed(),
        13 => (text(), text()).prop_map(|(a, b)| vec![Octets([a, b].concat())]).boxed(),
        35 => (octets(4), text(), text(), one())
            .prop_map(|(a, b, c, d)| vec![a, Octets([&b"\x01u"[..], &b, &c].concat()), d])
            .boxed(),
        46 => (octets(16), one(), rest()).prop_map(|(a, b, c)| vec![Octets(vec![0, 1]), a, b, c]).boxed(),
        47 => one().prop_map(|a| vec![a, Octets(b"\0\x01\x40".to_vec())]).boxed(),
        64 | 65 => one()
            .prop_map(|a| vec![Octets(vec![0, 1]), a, Octets(b"\0\x01\0\x03\x02h2\0\x04\0\x04\x0a\0\0\x01".to_vec())])
            .boxed(),
        52 => rest().prop_map(|a| vec![Octets(vec![3, 1, 1]), a]).boxed(),
        43 => octets(32).prop_map(|a| vec![Octets(vec![1, 2, 8, 2]), a]).boxed(),
        257 => Just(vec![Octets(b"\0\x05issueca.example".to_vec())]).boxed(),
        _ => rest().prop_map(|a| vec![a]).boxed(),
    }
}

fn signature(entry: &Entry) -> Entry {
    let [high, low] = entry.rtype.0.to_be_bytes();
    let fixed = [&[high, low][..], &[0; 16]].concat();
    let rdata = vec![Part::Octets(fixed), Part::Name(entry.owner.clone()), Part::Octets(vec![7; 8])];
    Entry { rtype: RecordType::RRSIG, rdata, ..entry.clone() }
}

/// Everything that is drawn for one scene.
#[derive(Debug, Clone)]
struct Draw {
    names: Vec<Labels>,
    data: Vec<Vec<Part>>,
    noise: Vec<(usize, u16, Labels, Vec<Part>)>,
    ttl: u32,
    soa_above: Option<usize>,
    is_signed: bool,
    has_opt: bool,
    order: Vec<usize>,
    coins: Vec<u8>,
}

fn draw(qtype: u16) -> impl Strategy<Value = (u16, Draw)> {
    let noise = (0..3_usize, select(TYPES.to_vec()), name_below("noise"))
        .prop_flat_map(|(section, rtype, owner)| (Just(section), Just(rtype), Just(owner), rdata(rtype)));
    let ttl = prop_oneof![0..100_000_u32, Just(0x8000_0001), Just(0x7fff_ffff)];
    // Long ones are found in a table.
    let chain = prop_oneof![4 => vec(name_below("chain"), 1..5), 1 => vec(name_below("chain"), 8..60)];
    let parts = (chain, vec(rdata(qtype), 0..6), vec(noise, 0..5), ttl);
    let choices = (proptest::option::of(0..3_usize), any::<bool>(), any::<bool>());
    let randomness = (vec(any::<usize>(), 32), vec(any::<u8>(), 64));
    (parts, choices, randomness).prop_map(move |(parts, choices, randomness)| {
        let (names, data, noise, ttl) = parts;
        let (soa_above, is_signed, has_opt) = choices;
        let (order, coins) = randomness;
        (qtype, Draw { names, data, noise, ttl, soa_above, is_signed, has_opt, order, coins })
    })
}

/// A response to a query of any type: a chain, data, proofs, and stray records, in any order.
pub(crate) fn scene() -> impl Strategy<Value = Scene> {
    select(TYPES.to_vec()).prop_flat_map(draw).prop_map(|(qtype, draw)| stage(qtype, draw))
}

/// Like [`scene`], only with types whose names and lengths the wire room reads to the last octet.
pub(crate) fn plain_scene() -> impl Strategy<Value = Scene> {
    select([1, 28, 2, 12, 15, 33].to_vec()).prop_flat_map(draw).prop_map(|(qtype, mut draw)| {
        draw.noise.clear();
        stage(qtype, draw)
    })
}

/// An answer with a record for each target, all compressed.
pub(crate) fn long_scene(qtype: RecordType, targets: impl Iterator<Item = Labels>) -> Scene {
    let owner = vec![b"long".to_vec(), b"example".to_vec()];
    let fixed = if qtype == RecordType::SRV { vec![0; 6] } else { Vec::new() };
    let entries: Vec<Entry> = targets
        .map(|target| Entry {
            section: 0,
            owner: owner.clone(),
            rtype: qtype,
            class: Class::IN,
            ttl: 60,
            rdata: vec![Part::Octets(fixed.clone()), Part::Name(target)],
            stays: true,
        })
        .collect();
    let name = Name::from_wire(&wire(&owner)).unwrap();
    let query = UpstreamQuery { name, qtype, qclass: Class::IN, do_bit: false, cd: false };
    let octets = Encoder::new(vec![0xff]).message(&owner, qtype.0, &entries, true);
    Scene { query, entries, has_opt: true, links: 0, has_data: true, octets }
}

fn stage(qtype: u16, draw: Draw) -> Scene {
    let mut seen = BTreeSet::new();
    let names: Vec<Labels> =
        draw.names.into_iter().filter(|name| seen.insert(wire(name).to_ascii_lowercase())).collect();
    let (last, links) = (names[names.len() - 1].clone(), names.len() - 1);
    let entry = |section: usize, owner: &Labels, rtype: u16, rdata: Vec<Part>, stays: bool| Entry {
        section,
        owner: owner.clone(),
        rtype: RecordType(rtype),
        class: Class::IN,
        ttl: draw.ttl,
        rdata,
        stays,
    };
    let mut entries: Vec<Entry> = names
        .windows(2)
        .map(|pair| entry(0, &pair[0], 5, vec![Part::Name(pair[1].clone())], true))
        .chain(draw.data.iter().map(|rdata| entry(0, &last, qtype, rdata.clone(), true)))
        .collect();
    let has_data = !draw.data.is_empty();
    if let Some(up) = draw.soa_above {
        let owner = last[up.min(last.len())..].to_vec();
        let rdata = vec![Part::Name(owner.clone()), Part::Name(last.clone()), Part::Octets(vec![0; 20])];
        entries.push(entry(1, &owner, 6, rdata, !has_data));
        entries.push(entry(1, &vec![b"noise".to_vec()], 6, vec![Part::Octets(vec![0; 22])], false));
    }
    if draw.is_signed {
        let next = vec![Part::Name(last.clone()), Part::Octets(b"\0\x01\x40".to_vec())];
        entries.push(entry(1, &last, 47, next, true));
        let signatures: Vec<Entry> = entries.iter().filter(|entry| entry.rtype.0 != 46).map(signature).collect();
        entries.extend(signatures);
    }
    for (section, rtype, owner, rdata) in draw.noise {
        // The proofs of any zone stay, they are of no use to who does not check them.
        let stays = section == 1 && rtype == 47;
        entries.push(entry(section, &owner, rtype, rdata, stays));
    }
    for (number, entry) in entries.iter_mut().enumerate() {
        entry.class = if entry.stays || number % 3 > 0 { Class::IN } else { Class::CH };
    }
    let mut keyed: Vec<(usize, usize, Entry)> =
        entries.into_iter().enumerate().map(|(n, e)| (e.section, draw.order[n % draw.order.len()], e)).collect();
    keyed.sort_by_key(|(section, order, _)| (*section, *order));
    let entries: Vec<Entry> = keyed.into_iter().map(|(_, _, entry)| entry).collect();
    let name = Name::from_wire(&wire(&names[0]).to_ascii_lowercase()).unwrap();
    let query = UpstreamQuery { name, qtype: RecordType(qtype), qclass: Class::IN, do_bit: draw.is_signed, cd: false };
    let octets = Encoder::new(draw.coins).message(&names[0], qtype, &entries, draw.has_opt);
    Scene { query, entries, has_opt: draw.has_opt, links, has_data, octets }
}

/// Writes messages, drawing lots on what to compress and which letters to turn.
struct Encoder {
    out: Vec<u8>,
    places: HashMap<Vec<Vec<u8>>, usize>,
    coins: Vec<u8>,
    tossed: usize,
}

impl Encoder {
    fn new(coins: Vec<u8>) -> Self {
        Self { out: Vec::new(), places: HashMap::new(), coins, tossed: 0 }
    }

    fn toss(&mut self) -> bool {
        self.tossed += 1;
        self.coins[self.tossed / 8 % self.coins.len()] >> (self.tossed % 8) & 1 == 1
    }

    fn message(mut self, qname: &Labels, qtype: u16, entries: &[Entry], has_opt: bool) -> Vec<u8> {
        let count = |section| u16::try_from(entries.iter().filter(|e| e.section == section).count()).unwrap();
        let additional = count(2) + u16::from(has_opt);
        for word in [ID, 0x8180, 1, count(0), count(1), additional] {
            self.out.extend(word.to_be_bytes());
        }
        self.name(qname);
        self.out.extend(qtype.to_be_bytes());
        self.out.extend([0, 1]);
        for entry in entries {
            self.entry(entry);
        }
        if has_opt {
            self.out.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\x80\0\0\0");
        }
        self.out
    }

    fn entry(&mut self, entry: &Entry) {
        self.name(&entry.owner);
        self.out.extend(entry.rtype.0.to_be_bytes());
        self.out.extend(entry.class.0.to_be_bytes());
        self.out.extend(entry.ttl.to_be_bytes());
        let length_at = self.out.len();
        self.out.extend([0, 0]);
        for part in &entry.rdata {
            match part {
                Part::Octets(octets) => self.out.extend_from_slice(octets),
                // Who has not read RFC 3597 compresses here whatever the type.
                Part::Name(labels) => self.name(labels),
            }
        }
        let length = u16::try_from(self.out.len() - length_at - 2).unwrap();
        self.out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }

    fn name(&mut self, labels: &Labels) {
        for at in 0..labels.len() {
            let key: Vec<Vec<u8>> = labels[at..].iter().map(|label| label.to_ascii_lowercase()).collect();
            if let Some(&place) = self.places.get(&key)
                && self.toss()
            {
                self.out.extend((0xc000 | u16::try_from(place).unwrap()).to_be_bytes());
                return;
            }
            if self.out.len() < 0x4000 {
                self.places.insert(key, self.out.len());
            }
            self.out.push(u8::try_from(labels[at].len()).unwrap());
            for &octet in &labels[at] {
                let turned = if octet.is_ascii_alphabetic() && self.toss() { octet ^ 0x20 } else { octet };
                self.out.push(turned);
            }
        }
        self.out.push(0);
    }
}
