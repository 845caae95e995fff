//! How names, cells, floors and queues are spelled as row keys.
//!
//! One ordered key space; the first byte is the table:
//!
//! | table | key after the first byte | row |
//! |---|---|---|
//! | `m` | a record's key | small named values |
//! | `o` | `actor`, `clock`, `position` | what the store keeps for itself |
//! | `n` | type, bucket, key | the object's [`Header`](super::record::Header) |
//! | `s` | object id, slot | one sibling: the header says which |
//! | `c` | content id, path, element, actor | one cell of data type content, or a floor |
//! | `i` | type, bucket, index, term, key | an entry of an index; the row says nothing more |
//! | `q` | content id, path | work for the sweep |
//! | `p` `e` | partition, map, key | what a key of a map holds, or that it was removed |
//! | `p` `o` | partition, position | the keys of a partition in the order of their last changes |
//! | `p` `t` | partition, time, position | removed keys by their age |
//! | `p` `m` | partition | the partition's numbers |
//!
//! Parts of variable length are escaped so that keys sort as the parts do: 0x00 is written 0x00 0xFF, and 0x00 0x01 ends a
//! part. Integer terms sort as numbers: a sign, the number of digits, the digits, the latter two turned round below zero. A
//! key that would be longer than [`KEY_BYTES_MAX`] is cut there and followed by the SHA-256 of the whole; the row's
//! value then carries the whole key, and scans go by the cut prefix and compare.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::domain::cell::{CellKey, Element, FieldKind, FieldName, Path};
use crate::domain::dot::{ActorId, Dot};
use crate::domain::index::{Integer, Posting, Term, TermKind};
use crate::domain::key::{BucketName, ObjectName};
use crate::domain::map::{MapKey, MapName, Partition};
use crate::store::StoreError;

/// The engine takes keys up to 65,535 bytes. Cut keys stay far below that, since long keys weigh on every index block.
pub(super) const KEY_BYTES_MAX: usize = 8 * 1024;

const RECORDS: u8 = b'm';
const OWN: u8 = b'o';
const NAMES: u8 = b'n';
pub(super) const SIBLINGS: u8 = b's';
const CELLS: u8 = b'c';
const INDEXES: u8 = b'i';
const QUEUE: u8 = b'q';
const MAPS: u8 = b'p';
const MAP_ENTRIES: u8 = b'e';
const MAP_ORDER: u8 = b'o';
const MAP_TOMBSTONES: u8 = b't';
const MAP_NUMBERS: u8 = b'm';

/// An actor at the end of a key.
const ACTOR_BYTES: usize = 8;

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xff;
const END_OF_PART: u8 = 0x01;

// Element tags in the order of `Element` and before the tag of a field inside, so that rows come in the order of a fetch.
const FLOOR: u8 = 0x08;
const PRESENCE: u8 = 0x10;
const COUNTER: u8 = 0x11;
const REGISTER: u8 = 0x12;
const FLAG: u8 = 0x13;
const HLL: u8 = 0x14;
const MEMBER: u8 = 0x20;
const FIELD: u8 = 0x40;

/// The rows of one object's siblings, or of one life of its data type content: the dot that began it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowId(pub(super) [u8; 16]);

impl RowId {
    pub(super) fn of(dot: Dot) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&dot.time.0.to_be_bytes());
        id[8..].copy_from_slice(&dot.actor.0.to_be_bytes());
        Self(id)
    }
}

/// A row key: as it stands in the store, and whole where it had to be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowKey {
    pub(super) row: Bytes,
    pub(super) whole: Option<Bytes>,
}

impl RowKey {
    fn of(key: Vec<u8>) -> Self {
        if key.len() <= KEY_BYTES_MAX {
            return Self { row: key.into(), whole: None };
        }
        let mut row = key[..KEY_BYTES_MAX].to_vec();
        row.extend_from_slice(&Sha256::digest(&key));
        Self { row: row.into(), whole: Some(key.into()) }
    }
}

/// What tells the table that a row is of: that of the maps is several.
pub(super) fn table(row: &[u8]) -> &[u8] {
    let bytes = if row.first() == Some(&MAPS) { 2 } else { 1 };
    row.get(..bytes).unwrap_or(row)
}

/// Whether the row is one of those that requests scan: cells and index entries.
pub(super) fn is_scanned(row: &[u8]) -> bool {
    matches!(row.first(), Some(&(CELLS | INDEXES)))
}

/// Whether a row's key was cut: its row is no neighbour of those before and after it, other than by what it was cut to.
pub(super) fn is_cut(row: &[u8]) -> bool {
    row.len() > KEY_BYTES_MAX
}

/// The prefix by which to scan for keys that begin with this one.
pub(super) fn scan_prefix(key: &[u8]) -> &[u8] {
    &key[..key.len().min(KEY_BYTES_MAX)]
}

/// The first key behind all that begin with the prefix; `None` when there is none.
pub(super) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

pub(super) fn record(key: &[u8]) -> RowKey {
    RowKey::of([&[RECORDS], key].concat())
}

pub(super) fn records() -> &'static [u8] {
    &[RECORDS]
}

/// The name in a record's whole key.
pub(super) fn record_name(key: &Bytes) -> Result<Bytes, StoreError> {
    if key.is_empty() { Err(StoreError::Damaged { what: "record key" }) } else { Ok(key.slice(1..)) }
}

/// The identity under which the directory's server writes.
pub(super) fn own_actor() -> RowKey {
    RowKey::of([&[OWN], &b"actor"[..]].concat())
}

/// The position up to which the tables hold every write.
pub(super) fn own_position() -> RowKey {
    RowKey::of([&[OWN], &b"position"[..]].concat())
}

/// The name of the log that may hold more than the tables do.
pub(super) fn own_log() -> RowKey {
    RowKey::of([&[OWN], &b"log"[..]].concat())
}

/// The bound of its clock.
pub(super) fn own_clock() -> RowKey {
    RowKey::of([&[OWN], &b"clock"[..]].concat())
}

pub(super) fn name(name: &ObjectName) -> RowKey {
    RowKey::of(parts(NAMES, &[&name.bucket.bucket_type, &name.bucket.bucket, &name.key]))
}

/// What the keys of a bucket's names begin with.
pub(super) fn bucket(bucket: &BucketName) -> Vec<u8> {
    parts(NAMES, &[&bucket.bucket_type, &bucket.bucket])
}

/// What the keys of a bucket type's names begin with.
pub(super) fn bucket_type(bucket_type: &[u8]) -> Vec<u8> {
    parts(NAMES, &[bucket_type])
}

/// The key that a whole name key has behind its bucket's prefix, as the index of the bucket's keys has it.
pub(super) fn parse_name_in_bucket(rest: &[u8]) -> Result<Posting, StoreError> {
    let (key, rest) = take_part(rest).ok_or(StoreError::Damaged { what: "name" })?;
    if rest.is_empty() { Ok(Posting { term: None, key }) } else { Err(StoreError::Damaged { what: "name" }) }
}

/// The object that a whole name key names.
pub(super) fn parse_name(key: &[u8]) -> Result<ObjectName, StoreError> {
    let damaged = StoreError::Damaged { what: "name" };
    let rest = key.strip_prefix(&[NAMES]).ok_or(damaged.clone())?;
    let (bucket_type, rest) = take_part(rest).ok_or(damaged.clone())?;
    let (bucket, rest) = take_part(rest).ok_or(damaged.clone())?;
    let (key, rest) = take_part(rest).ok_or(damaged.clone())?;
    if !rest.is_empty() {
        return Err(damaged);
    }
    Ok(ObjectName { bucket: BucketName { bucket_type, bucket }, key })
}

/// What the keys of an index's entries begin with.
pub(super) fn index(bucket: &BucketName, index: &[u8]) -> Vec<u8> {
    parts(INDEXES, &[&bucket.bucket_type, &bucket.bucket, index])
}

/// What the keys of an index's entries with one term begin with.
pub(super) fn index_term(bucket: &BucketName, index: &[u8], term: &Term) -> Vec<u8> {
    let mut key = self::index(bucket, index);
    match term {
        Term::Binary(value) => put_part(&mut key, value),
        Term::Integer(integer) => put_integer(&mut key, integer),
    }
    key
}

pub(super) fn posting(name: &ObjectName, index: &[u8], term: &Term) -> RowKey {
    let mut key = index_term(&name.bucket, index, term);
    put_part(&mut key, &name.key);
    RowKey::of(key)
}

/// What a whole key of the index table says behind its index's prefix.
pub(super) fn parse_posting(rest: &[u8], kind: TermKind) -> Result<Posting, StoreError> {
    try_parse_posting(rest, kind).ok_or(StoreError::Damaged { what: "index entry" })
}

fn try_parse_posting(rest: &[u8], kind: TermKind) -> Option<Posting> {
    let (term, rest) = match kind {
        TermKind::Binary => take_part(rest).map(|(value, rest)| (Term::Binary(value), rest))?,
        TermKind::Integer => take_integer(rest).map(|(integer, rest)| (Term::Integer(integer), rest))?,
    };
    let (key, rest) = take_part(rest)?;
    rest.is_empty().then_some(Posting { term: Some(term), key })
}

pub(super) fn sibling(id: RowId, slot: u32) -> Bytes {
    [&table_of(SIBLINGS, id)[..], &slot.to_be_bytes()].concat().into()
}

pub(super) fn cell(id: RowId, key: &CellKey, actor: ActorId) -> RowKey {
    let mut bytes = cells(id, key);
    bytes.extend_from_slice(&actor.0.to_be_bytes());
    RowKey::of(bytes)
}

/// What the keys of all actors' cells at a key begin with. There is room for an actor.
pub(super) fn cells(id: RowId, key: &CellKey) -> Vec<u8> {
    let element_bytes = match &key.element {
        Element::Member(member) => 1 + part_bytes(member),
        _ => 1,
    };
    let mut bytes = subtree_with(id, &key.path, element_bytes + ACTOR_BYTES);
    match &key.element {
        Element::Presence => bytes.push(PRESENCE),
        Element::Counter => bytes.push(COUNTER),
        Element::Register => bytes.push(REGISTER),
        Element::Flag => bytes.push(FLAG),
        Element::Hll => bytes.push(HLL),
        Element::Member(member) => {
            bytes.push(MEMBER);
            put_part(&mut bytes, member);
        }
        Element::Sibling(_) => unreachable!("siblings are rows of their own table"),
    }
    bytes
}

pub(super) fn floor(id: RowId, path: &Path, actor: ActorId) -> RowKey {
    let mut bytes = subtree_with(id, path, 1 + ACTOR_BYTES);
    bytes.push(FLOOR);
    bytes.extend_from_slice(&actor.0.to_be_bytes());
    RowKey::of(bytes)
}

/// What the keys of everything at or under a path begin with.
pub(super) fn subtree(id: RowId, path: &Path) -> Vec<u8> {
    subtree_with(id, path, 0)
}

/// The same with room for what follows.
fn subtree_with(id: RowId, path: &Path, following_bytes: usize) -> Vec<u8> {
    let table = table_of(CELLS, id);
    let fields_bytes: usize = path.fields().iter().map(|field| 2 + part_bytes(&field.name)).sum();
    let mut key = Vec::with_capacity(table.len() + fields_bytes + following_bytes);
    key.extend_from_slice(&table);
    for field in path.fields() {
        key.push(FIELD);
        put_part(&mut key, &field.name);
        key.push(kind_byte(field.kind));
    }
    key
}

/// What a whole key of the cell table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CellRow {
    Cell(CellKey, ActorId),
    Floor(Path, ActorId),
}

pub(super) fn parse_cell(key: &[u8]) -> Result<CellRow, StoreError> {
    try_parse_cell(key).ok_or(StoreError::Damaged { what: "cell key" })
}

fn try_parse_cell(key: &[u8]) -> Option<CellRow> {
    let mut rest = key.get(17..)?;
    let mut fields = Vec::new();
    loop {
        let (&tag, after) = rest.split_first()?;
        if tag != FIELD {
            break;
        }
        let (name, after) = take_part(after)?;
        let (&kind, after) = after.split_first()?;
        fields.push(FieldName { name, kind: kind_of(kind)? });
        rest = after;
    }
    let path = Path::from(fields);
    let (&tag, mut rest) = rest.split_first()?;
    let element = match tag {
        FLOOR => None,
        PRESENCE => Some(Element::Presence),
        COUNTER => Some(Element::Counter),
        REGISTER => Some(Element::Register),
        FLAG => Some(Element::Flag),
        HLL => Some(Element::Hll),
        MEMBER => {
            let (member, after) = take_part(rest)?;
            rest = after;
            Some(Element::Member(member))
        }
        _ => return None,
    };
    let actor = ActorId(u64::from_be_bytes(rest.try_into().ok()?));
    Some(match element {
        Some(element) => CellRow::Cell(CellKey { path, element }, actor),
        None => CellRow::Floor(path, actor),
    })
}

/// The key of the work to sweep a path of a content; the root path means the whole content, which is gone.
pub(super) fn queue(id: RowId, path: &Path) -> RowKey {
    let mut key = subtree(id, path);
    key[0] = QUEUE;
    RowKey::of(key)
}

pub(super) fn queues() -> &'static [u8] {
    &[QUEUE]
}

/// The content and the path that a whole queue key names.
pub(super) fn parse_queue(key: &[u8]) -> Result<(RowId, Path), StoreError> {
    let damaged = StoreError::Damaged { what: "queue key" };
    let id: [u8; 16] = key.get(1..17).and_then(|id| id.try_into().ok()).ok_or(damaged.clone())?;
    // A queue key is a cell key that ends with its path.
    let floor = [key, &[FLOOR], &[0; 8]].concat();
    match parse_cell(&floor)? {
        CellRow::Floor(path, _) => Ok((RowId(id), path)),
        CellRow::Cell(..) => Err(damaged),
    }
}

/// What the keys of a partition's entries begin with.
pub(super) fn map_entries(partition: Partition) -> Vec<u8> {
    map_table(MAP_ENTRIES, partition)
}

pub(super) fn map_entry(partition: Partition, key: &MapKey) -> RowKey {
    let mut row = map_entries(partition);
    key.map.parts().into_iter().chain([&key.key]).for_each(|part| put_part(&mut row, part));
    RowKey::of(row)
}

/// The key of a map that the whole key of its row names.
pub(super) fn parse_map_entry(key: &[u8]) -> Result<MapKey, StoreError> {
    try_parse_map_entry(key).ok_or(StoreError::Damaged { what: "map key" })
}

fn try_parse_map_entry(key: &[u8]) -> Option<MapKey> {
    let mut rest = key.strip_prefix(&[MAPS, MAP_ENTRIES])?.get(4..)?;
    let mut part = || {
        let (part, after) = take_part(rest)?;
        rest = after;
        Some(part)
    };
    let map = MapName {
        protocol_namespace: part()?,
        protocol_name: part()?,
        primitive_namespace: part()?,
        primitive_name: part()?,
    };
    let key = part()?;
    rest.is_empty().then_some(MapKey { map, key })
}

/// What the keys of a partition's changes begin with.
pub(super) fn map_order(partition: Partition) -> Vec<u8> {
    map_table(MAP_ORDER, partition)
}

pub(super) fn map_change(partition: Partition, position: u64) -> Bytes {
    [&map_order(partition)[..], &position.to_be_bytes()].concat().into()
}

/// The position in the key of a change.
pub(super) fn parse_map_change(row: &[u8]) -> Result<u64, StoreError> {
    let position = row.last_chunk().ok_or(StoreError::Damaged { what: "map change" })?;
    Ok(u64::from_be_bytes(*position))
}

/// What the keys of a partition's removed keys begin with.
pub(super) fn map_tombstones(partition: Partition) -> Vec<u8> {
    map_table(MAP_TOMBSTONES, partition)
}

/// The key under which a removed key is found by its age, in milliseconds since 1970.
pub(super) fn map_tombstone(partition: Partition, removed_ms: u64, position: u64) -> Bytes {
    [&map_tombstones(partition)[..], &removed_ms.to_be_bytes(), &position.to_be_bytes()].concat().into()
}

pub(super) fn map_numbers(partition: Partition) -> Bytes {
    map_table(MAP_NUMBERS, partition).into()
}

/// What the keys of all partitions' numbers begin with.
pub(super) fn all_map_numbers() -> &'static [u8] {
    &[MAPS, MAP_NUMBERS]
}

/// The partition whose numbers a row holds.
pub(super) fn parse_map_numbers(row: &[u8]) -> Result<Partition, StoreError> {
    let number = row.get(2..).and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
    number.and_then(Partition::of_number).ok_or(StoreError::Damaged { what: "map partition" })
}

fn map_table(table: u8, partition: Partition) -> Vec<u8> {
    [&[MAPS, table][..], &partition.number().to_be_bytes()].concat()
}

fn table_of(table: u8, id: RowId) -> [u8; 17] {
    let mut key = [table; 17];
    key[1..].copy_from_slice(&id.0);
    key
}

fn kind_byte(kind: FieldKind) -> u8 {
    match kind {
        FieldKind::Counter => 1,
        FieldKind::Register => 2,
        FieldKind::Map => 3,
        FieldKind::Flag => 4,
        FieldKind::Set => 5,
    }
}

fn kind_of(byte: u8) -> Option<FieldKind> {
    Some(match byte {
        1 => FieldKind::Counter,
        2 => FieldKind::Register,
        3 => FieldKind::Map,
        4 => FieldKind::Flag,
        5 => FieldKind::Set,
        _ => return None,
    })
}

/// A key of these parts. Here as elsewhere keys take exactly what they need: they are made for every request.
fn parts(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part_bytes(part)).sum::<usize>());
    key.push(table);
    parts.iter().for_each(|part| put_part(&mut key, part));
    key
}

/// What a part takes, in bytes.
fn part_bytes(part: &[u8]) -> usize {
    part.len() + part.iter().filter(|&&byte| byte == ESCAPE).count() + 2
}

fn put_part(key: &mut Vec<u8>, part: &[u8]) {
    for piece in part.split_inclusive(|&byte| byte == ESCAPE) {
        key.extend_from_slice(piece);
        if piece.ends_with(&[ESCAPE]) {
            key.push(ESCAPED_ZERO);
        }
    }
    key.extend_from_slice(&[ESCAPE, END_OF_PART]);
}

fn take_part(bytes: &[u8]) -> Option<(Bytes, &[u8])> {
    let mut part = Vec::new();
    let mut rest = bytes;
    loop {
        let zero = rest.iter().position(|&byte| byte == ESCAPE)?;
        part.extend_from_slice(&rest[..zero]);
        let &mark = rest.get(zero + 1)?;
        rest = &rest[zero + 2..];
        match mark {
            ESCAPED_ZERO => part.push(ESCAPE),
            END_OF_PART => return Some((part.into(), rest)),
            _ => return None,
        }
    }
}

const NEGATIVE: u8 = 0x01;
const NOT_NEGATIVE: u8 = 0x02;

fn put_integer(key: &mut Vec<u8>, integer: &Integer) {
    let digits = integer.digits();
    let count = u16::try_from(digits.len()).expect("integers have few digits");
    if integer.is_negative() {
        key.push(NEGATIVE);
        key.extend_from_slice(&(!count).to_be_bytes());
        key.extend(digits.iter().map(turned));
    } else {
        key.push(NOT_NEGATIVE);
        key.extend_from_slice(&count.to_be_bytes());
        key.extend_from_slice(digits);
    }
}

fn take_integer(bytes: &[u8]) -> Option<(Integer, &[u8])> {
    let (&sign, rest) = bytes.split_first()?;
    let (&count, rest) = rest.split_first_chunk()?;
    let count = u16::from_be_bytes(count);
    let (count, negative) = match sign {
        NEGATIVE => (!count, true),
        NOT_NEGATIVE => (count, false),
        _ => return None,
    };
    let (digits, rest) = rest.split_at_checked(count.into())?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let text: Vec<u8> = match negative {
        true => [b'-'].into_iter().chain(digits.iter().map(turned)).collect(),
        false => digits.to_vec(),
    };
    let text = Bytes::from(text);
    // Each number has one spelling, so that it has one row.
    Integer::parse(&text).filter(|integer| *integer.text() == text).map(|integer| (integer, rest))
}

/// A decimal digit such that the greater becomes the smaller.
fn turned(digit: &u8) -> u8 {
    b'0' + (b'9' - digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop_oneof![
            proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()], 0..6),
            proptest::collection::vec(any::<u8>(), 9_000..9_050),
        ]
        .prop_map(Bytes::from)
    }

    fn kind() -> impl Strategy<Value = FieldKind> {
        (1_u8..=5).prop_map(|byte| kind_of(byte).unwrap())
    }

    fn cell_key() -> impl Strategy<Value = CellKey> {
        let fields =
            proptest::collection::vec((bytes(), kind()).prop_map(|(name, kind)| FieldName { name, kind }), 0..3);
        let element = prop_oneof![
            Just(Element::Presence),
            Just(Element::Counter),
            Just(Element::Register),
            Just(Element::Flag),
            Just(Element::Hll),
            bytes().prop_map(Element::Member),
        ];
        (fields, element).prop_map(|(fields, element)| CellKey { path: Path::from(fields), element })
    }

    fn term(kind: TermKind) -> BoxedStrategy<Term> {
        match kind {
            TermKind::Binary => bytes().prop_map(Term::Binary).boxed(),
            TermKind::Integer => "-?[0-9]{1,3}|-?[0-9]{1,80}"
                .prop_map(|text| Term::Integer(Integer::parse(&Bytes::from(text)).unwrap()))
                .boxed(),
        }
    }

    const ID: RowId = RowId([7; 16]);

    proptest! {
        #[test]
        fn cell_keys_come_back_and_sort_as_cells_do(a in cell_key(), b in cell_key()) {
            let (row_a, row_b) = (cell(ID, &a, ActorId(1)), cell(ID, &b, ActorId(1)));
            for (key, row) in [(&a, &row_a), (&b, &row_b)] {
                let whole = row.whole.as_ref().unwrap_or(&row.row);
                prop_assert_eq!(parse_cell(whole).unwrap(), CellRow::Cell(key.clone(), ActorId(1)));
                prop_assert!(row.row.len() <= KEY_BYTES_MAX + 32);
                prop_assert!(row.row.starts_with(scan_prefix(&subtree(ID, &key.path))));
            }
            if row_a.whole.is_none() && row_b.whole.is_none() {
                prop_assert_eq!(a.cmp(&b), row_a.row.cmp(&row_b.row));
            }
            prop_assert_eq!(a == b, row_a.row == row_b.row);
        }

        #[test]
        fn names_come_back_and_sort_as_names_do(a in (bytes(), bytes(), bytes()), b in (bytes(), bytes(), bytes())) {
            let object = |(bucket_type, bucket, key): (Bytes, Bytes, Bytes)| {
                ObjectName { bucket: BucketName { bucket_type, bucket }, key }
            };
            let (a, b) = (object(a), object(b));
            let (row_a, row_b) = (name(&a), name(&b));
            prop_assert_eq!(parse_name(row_a.whole.as_ref().unwrap_or(&row_a.row)).unwrap(), a.clone());
            if row_a.whole.is_none() && row_b.whole.is_none() {
                prop_assert_eq!(a.cmp(&b), row_a.row.cmp(&row_b.row));
            }
            prop_assert_eq!(a == b, row_a.row == row_b.row);
        }

        #[test]
        fn postings_come_back_and_sort_as_terms_and_keys_do(
            (a, b) in prop_oneof![
                (term(TermKind::Integer), term(TermKind::Integer)),
                (term(TermKind::Binary), term(TermKind::Binary)),
            ],
            (key_a, key_b) in (bytes(), bytes()),
        ) {
            let bucket = BucketName::new(None, Bytes::from_static(b"b\0"));
            let index = b"x\0_bin";
            let row = |term: &Term, key: &Bytes| {
                posting(&ObjectName { bucket: bucket.clone(), key: key.clone() }, index, term)
            };
            let (row_a, row_b) = (row(&a, &key_a), row(&b, &key_b));
            let prefix = self::index(&bucket, index);
            for (row, term, key) in [(&row_a, &a, &key_a), (&row_b, &b, &key_b)] {
                let whole = row.whole.as_ref().unwrap_or(&row.row);
                let kind = if matches!(term, Term::Integer(_)) { TermKind::Integer } else { TermKind::Binary };
                let found = parse_posting(whole.strip_prefix(&prefix[..]).unwrap(), kind).unwrap();
                prop_assert_eq!(found, Posting { term: Some(term.clone()), key: key.clone() });
                prop_assert!(row.row.starts_with(scan_prefix(&index_term(&bucket, index, term))));
                prop_assert_eq!(is_cut(&row.row), row.whole.is_some());
            }
            let (whole_a, whole_b) = (row_a.whole.as_ref().unwrap_or(&row_a.row), row_b.whole.as_ref().unwrap_or(&row_b.row));
            prop_assert_eq!((&a, &key_a).cmp(&(&b, &key_b)), whole_a.cmp(whole_b));
            prop_assert_eq!((&a, &key_a) == (&b, &key_b), row_a.row == row_b.row);
        }

        #[test]
        fn strange_keys_are_damage_and_no_panic(key in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse_cell(&key);
            let _ = parse_name(&key);
            let _ = record_name(&Bytes::copy_from_slice(&key));
            let _ = parse_queue(&key);
            let _ = parse_posting(&key, TermKind::Integer);
            let _ = parse_posting(&key, TermKind::Binary);
            let _ = parse_name_in_bucket(&key);
        }
    }

    #[test]
    fn an_integer_has_one_spelling() {
        assert!(take_integer(&[NOT_NEGATIVE, 0, 1, b'7']).is_some());
        assert!(take_integer(&[NEGATIVE, 0xff, 0xfe, b'2']).is_some());
        for strange in [
            &[NOT_NEGATIVE, 0, 2, b'0', b'7'][..],
            &[NOT_NEGATIVE, 0, 0],
            &[NEGATIVE, 0xff, 0xfe, b'9'],
            &[NOT_NEGATIVE, 0, 1, b'x'],
            &[NEGATIVE, 0, 1, b'7'],
            &[3, 0, 1, b'7'],
        ] {
            assert!(take_integer(strange).is_none(), "{strange:?}");
        }
    }

    #[test]
    fn cut_short_keys_are_damage() {
        let path = Path::root().child(FieldName { name: Bytes::from_static(b"a\0b"), kind: FieldKind::Map });
        let key = CellKey { path: path.clone(), element: Element::Member(Bytes::from_static(b"m\0")) };
        let object = ObjectName { bucket: BucketName::new(None, Bytes::new()), key: Bytes::from_static(b"k") };
        let (cell, floor, name) = (cell(ID, &key, ActorId(1)).row, floor(ID, &path, ActorId(1)).row, name(&object).row);
        for key in [&cell, &floor] {
            assert!((0..key.len()).all(|end| parse_cell(&key[..end]).is_err()));
        }
        assert!((0..name.len()).all(|end| parse_name(&name[..end]).is_err()));
        assert_eq!(record_name(&Bytes::new()), Err(StoreError::Damaged { what: "record key" }));
        assert_eq!(record_name(&record(b"r").row), Ok(Bytes::from_static(b"r")));
    }

    proptest! {
        #[test]
        fn map_keys_come_back_and_sort_as_they_do(a in map_key(), b in map_key()) {
            let partition = Partition::of_number(3).unwrap();
            let whole = |key: &MapKey| {
                let row = map_entry(partition, key);
                row.whole.unwrap_or(row.row)
            };
            prop_assert_eq!(parse_map_entry(&whole(&a)).unwrap(), a.clone());
            prop_assert_eq!(whole(&a).cmp(&whole(&b)), a.cmp(&b));
            prop_assert!(whole(&a).starts_with(&map_entries(partition)));
            let cut = whole(&a);
            prop_assert!((0..cut.len().min(64)).all(|end| parse_map_entry(&cut[..end]).is_err()));
        }
    }

    fn map_key() -> impl Strategy<Value = MapKey> {
        (bytes(), bytes(), bytes(), bytes(), bytes()).prop_map(|(a, b, c, d, key)| MapKey {
            map: MapName { protocol_namespace: a, protocol_name: b, primitive_namespace: c, primitive_name: d },
            key,
        })
    }

    #[test]
    fn numbers_in_map_rows_come_back() {
        let partition = Partition::of_number(0x0102_0304).unwrap();
        assert_eq!(parse_map_change(&map_change(partition, 7)).unwrap(), 7);
        assert_eq!(parse_map_numbers(&map_numbers(partition)).unwrap(), partition);
        assert!(parse_map_numbers(&map_numbers(partition)[..5]).is_err());
        assert!(parse_map_numbers(&[b'p', b'm', 0, 0, 0, 0]).is_err());
        assert!(map_tombstone(partition, 5, 9) < map_tombstone(partition, 6, 1));
    }

    #[test]
    fn queue_keys_come_back() {
        let path = Path::root().child(FieldName { name: Bytes::from_static(b"a\0b"), kind: FieldKind::Map });
        for path in [Path::root(), path] {
            assert_eq!(parse_queue(&queue(ID, &path).row).unwrap(), (ID, path));
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_that_begin_with_it() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(&[1, 0xff]), Some(vec![2]));
        assert_eq!(prefix_end(&[0xff]), None);
    }
}
