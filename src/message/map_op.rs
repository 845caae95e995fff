//! Map operations, which arrive in two layouts of the same field numbers.

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use super::generated::map_field::MapFieldType;
use super::generated::map_update::FlagOp;
use super::generated::{MapField, MapUpdate};

/// A map operation as it travels, each element still encoded.
///
/// Declared by hand: the layouts give the same field numbers to different messages, and which one is meant shows only
/// when the whole request has been seen. [`MapOp::interpret`] finds out.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct MapOp {
    /// Released: removes. Preview: adds. Both are `MapField`.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    first: Vec<Bytes>,
    /// Released: updates, which are `MapUpdate`. Preview: removes, which are `MapField`.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    second: Vec<Bytes>,
    /// Preview: updates, which are `MapUpdate`.
    #[prost(bytes = "bytes", repeated, tag = "3")]
    third: Vec<Bytes>,
}

impl MapOp {
    /// An operation in the layout of released clients, for the client's side.
    pub fn released(removes: &[MapField], updates: &[MapUpdate]) -> MapOp {
        MapOp {
            first: removes.iter().map(encode).collect(),
            second: updates.iter().map(encode).collect(),
            third: Vec::new(),
        }
    }

    /// Finds out the layout and decodes the operation with all operations nested in it.
    ///
    /// Some field 3, or a field 2 that holds a `MapField`, shows the preview; a field 2 that holds a `MapUpdate` shows
    /// the released layout. What only has field 1 shows nothing: then the layout this connection has shown before
    /// counts, and without one the released layout.
    ///
    /// # Errors
    /// See [`MapOpError`].
    pub fn interpret(&self, options: MapOpOptions) -> Result<MapOpInterpretation, MapOpError> {
        let mut reader = Reader { depth_max: options.depth_max, evidence: None };
        let mut operation = reader.map_op(self, 1)?;
        let evidence = reader.evidence;
        let accepted = match options.layout {
            MapOpLayoutOption::Auto => evidence.or(options.remembered).unwrap_or(MapOpLayout::Released),
            MapOpLayoutOption::Released => MapOpLayout::Released,
            MapOpLayoutOption::Preview => MapOpLayout::Preview,
        };
        if let Some(found) = evidence
            && found != accepted
        {
            return Err(MapOpError::LayoutRefused { accepted, found });
        }
        if accepted == MapOpLayout::Released {
            operation.turn_adds_into_removes();
        }
        Ok(MapOpInterpretation { operation, remember: evidence.or(options.remembered) })
    }
}

/// Which messages the fields of a map operation hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapOpLayout {
    /// Of every released Riak and client: 1 removes, 2 updates.
    Released,
    /// Of a preview of 2014, still shown by published protocol pages: 1 adds, 2 removes, 3 updates.
    Preview,
}

/// Which layouts a listener accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapOpLayoutOption {
    /// Either one, as the request shows it.
    #[default]
    Auto,
    /// Only [`MapOpLayout::Released`].
    Released,
    /// Only [`MapOpLayout::Preview`].
    Preview,
}

/// How [`MapOp::interpret`] reads an operation.
#[derive(Clone, Copy, Debug)]
pub struct MapOpOptions {
    /// The layouts accepted.
    pub layout: MapOpLayoutOption,
    /// The layout earlier requests of the same connection have shown.
    pub remembered: Option<MapOpLayout>,
    /// How many operations may be inside each other, the outermost counted. Reading recurses this deep, so it must
    /// fit the stack: some hundreds at most.
    pub depth_max: usize,
}

/// What [`MapOp::interpret`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapOpInterpretation {
    /// What is to be done, whatever the layout was.
    pub operation: MapOperation,
    /// What the connection should give as [`MapOpOptions::remembered`] from now on.
    pub remember: Option<MapOpLayout>,
}

/// A map operation without its layout. Adds come first, then removes, then updates, each in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapOperation {
    /// Fields to create with their type's empty value. Only the preview layout has them.
    pub adds: Vec<FieldName>,
    /// Fields to remove.
    pub removes: Vec<FieldName>,
    /// Operations on fields, which create the field when it is absent.
    pub updates: Vec<FieldUpdate>,
}

impl MapOperation {
    /// Until the layout is known, the fields listed first are taken for adds. Released operations have none, and list
    /// no removes elsewhere.
    fn turn_adds_into_removes(&mut self) {
        std::mem::swap(&mut self.adds, &mut self.removes);
        for update in &mut self.updates {
            if let FieldOperation::Map(nested) = &mut update.operation {
                nested.turn_adds_into_removes();
            }
        }
    }
}

/// The name of a map's field. Fields of one name and different kinds are different fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldName {
    /// Any bytes, also none.
    pub name: Bytes,
    /// The type of the field's value.
    pub kind: MapFieldType,
}

/// An operation on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldUpdate {
    /// Any bytes, also none.
    pub name: Bytes,
    /// What to do; its variant is the field's kind.
    pub operation: FieldOperation,
}

/// What to do with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldOperation {
    /// Add to a counter; absent means 1.
    Counter(Option<i64>),
    /// Change a set, adds first.
    Set {
        /// Members to add.
        adds: Vec<Bytes>,
        /// Members to remove.
        removes: Vec<Bytes>,
    },
    /// Assign a register.
    Register(Bytes),
    /// Enable or disable a flag.
    Flag(bool),
    /// Change a map inside the map.
    Map(MapOperation),
}

/// Why a map operation cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MapOpError {
    /// The bytes are no map operation in any layout.
    #[error("malformed map operation: {0}")]
    Malformed(#[from] MapOpDefect),
    /// The operation is in a layout that the listener does not accept.
    #[error("map operation in the {found:?} layout, only {accepted:?} is accepted here")]
    LayoutRefused {
        /// The layout the listener accepts.
        accepted: MapOpLayout,
        /// The layout the operation shows.
        found: MapOpLayout,
    },
    /// Too many operations inside each other.
    #[error("map operations nested more than {depth_max} deep")]
    TooDeep {
        /// How many may be inside each other.
        depth_max: usize,
    },
}

/// What is wrong with a malformed map operation.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MapOpDefect {
    /// An element is no protocol buffers message of its kind.
    #[error(transparent)]
    Undecodable(#[from] prost::DecodeError),
    /// Some parts show the released layout, others the preview.
    #[error("parts are in different layouts")]
    MixedLayouts,
    /// An update names no field.
    #[error("an update without a field")]
    FieldMissing,
    /// A field has no name.
    #[error("a field without a name")]
    NameMissing,
    /// A field has no type.
    #[error("a field without a type")]
    TypeMissing,
    /// A field has a type that does not exist.
    #[error("unknown field type {number}")]
    TypeUnknown {
        /// The type's number.
        number: i32,
    },
    /// An update has no operation for its field's type.
    #[error("an update of a {kind:?} field without its operation")]
    OperationMissing {
        /// The field's type.
        kind: MapFieldType,
    },
    /// A flag is to be neither enabled nor disabled.
    #[error("unknown flag operation {number}")]
    FlagOperationUnknown {
        /// The operation's number.
        number: i32,
    },
}

/// Decodes a request's operations and gathers what they show of its layout.
struct Reader {
    depth_max: usize,
    evidence: Option<MapOpLayout>,
}

impl Reader {
    /// Leaves the fields listed first in `adds`, for only the whole request tells what they are.
    fn map_op(&mut self, map_op: &MapOp, depth: usize) -> Result<MapOperation, MapOpError> {
        if depth > self.depth_max {
            return Err(MapOpError::TooDeep { depth_max: self.depth_max });
        }
        let mut operation = MapOperation::default();
        for element in &map_op.first {
            operation.adds.push(field_name(decode(element)?)?);
        }
        for element in &map_op.second {
            match second_element(element)? {
                SecondElement::Field(field) => {
                    self.note(MapOpLayout::Preview)?;
                    operation.removes.push(field_name(field)?);
                }
                SecondElement::Update(update) => {
                    self.note(MapOpLayout::Released)?;
                    operation.updates.push(self.update(update, depth)?);
                }
            }
        }
        for element in &map_op.third {
            self.note(MapOpLayout::Preview)?;
            operation.updates.push(self.update(decode(element)?, depth)?);
        }
        Ok(operation)
    }

    fn note(&mut self, found: MapOpLayout) -> Result<(), MapOpDefect> {
        match self.evidence.replace(found) {
            Some(before) if before != found => Err(MapOpDefect::MixedLayouts),
            _ => Ok(()),
        }
    }

    /// Members that do not fit the field's type are ignored, as Riak does.
    fn update(&mut self, update: MapUpdate, depth: usize) -> Result<FieldUpdate, MapOpError> {
        let field = update.field.ok_or(MapOpDefect::FieldMissing)?;
        let FieldName { name, kind } = field_name(field)?;
        let missing = MapOpDefect::OperationMissing { kind };
        let operation = match kind {
            MapFieldType::Counter => FieldOperation::Counter(update.counter_op.ok_or(missing)?.increment),
            MapFieldType::Set => {
                let set_op = update.set_op.ok_or(missing)?;
                FieldOperation::Set { adds: set_op.adds, removes: set_op.removes }
            }
            // Riak stores an entry without a value when the member is missing, which no client can read.
            MapFieldType::Register => FieldOperation::Register(update.register_op.ok_or(missing)?),
            MapFieldType::Flag => {
                let number = update.flag_op.ok_or(missing)?;
                match FlagOp::try_from(number) {
                    Ok(FlagOp::Enable) => FieldOperation::Flag(true),
                    Ok(FlagOp::Disable) => FieldOperation::Flag(false),
                    Err(_) => return Err(MapOpDefect::FlagOperationUnknown { number }.into()),
                }
            }
            MapFieldType::Map => {
                let nested = update.map_op.ok_or(missing)?;
                FieldOperation::Map(self.map_op(&nested, depth + 1)?)
            }
        };
        Ok(FieldUpdate { name, operation })
    }
}

/// What an element of field 2 turned out to be.
enum SecondElement {
    Field(MapField),
    Update(MapUpdate),
}

/// A `MapField` has its type, a varint, at number 2, where a `MapUpdate` can only have a message.
fn second_element(element: &Bytes) -> Result<SecondElement, MapOpDefect> {
    if let Ok(field) = MapField::decode(element.clone())
        && field.r#type.is_some()
    {
        return Ok(SecondElement::Field(field));
    }
    Ok(SecondElement::Update(decode(element)?))
}

fn field_name(field: MapField) -> Result<FieldName, MapOpDefect> {
    let name = field.name.ok_or(MapOpDefect::NameMissing)?;
    let number = field.r#type.ok_or(MapOpDefect::TypeMissing)?;
    let kind = MapFieldType::try_from(number).map_err(|_| MapOpDefect::TypeUnknown { number })?;
    Ok(FieldName { name, kind })
}

fn decode<M: Message + Default>(element: &Bytes) -> Result<M, MapOpDefect> {
    Ok(M::decode(element.clone())?)
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::generated::{CounterOp, SetOp};

    const AUTO: MapOpOptions = MapOpOptions { layout: MapOpLayoutOption::Auto, remembered: None, depth_max: 8 };

    /// Bytes written as hex digits, blanks allowed.
    fn hex(text: &str) -> Bytes {
        let digits: Vec<u32> = text.chars().filter_map(|char| char.to_digit(16)).collect();
        digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
    }

    fn map_op(text: &str) -> MapOp {
        MapOp::decode(hex(text)).expect("three repeated fields")
    }

    fn interpret(text: &str) -> Result<MapOpInterpretation, MapOpError> {
        map_op(text).interpret(AUTO)
    }

    fn field(name: &'static str, kind: MapFieldType) -> MapField {
        MapField { name: Some(name.into()), r#type: Some(kind.into()) }
    }

    fn name(name: &'static str, kind: MapFieldType) -> FieldName {
        FieldName { name: name.into(), kind }
    }

    fn update(name: &'static str, operation: FieldOperation) -> FieldUpdate {
        FieldUpdate { name: name.into(), operation }
    }

    fn nested(depth: usize, innermost: MapOp) -> MapOp {
        (1..depth).fold(innermost, |inner, _| {
            let update =
                MapUpdate { field: Some(field("m", MapFieldType::Map)), map_op: Some(inner), ..MapUpdate::default() };
            MapOp::released(&[], &[update])
        })
    }

    /// Remove f (set), enable f (flag), in both layouts. The first is the published example of released bytes.
    const RELEASED: &str = "0a05 0a0166 1002  1209 0a05 0a0166 1004 2801";
    const PREVIEW: &str = "1205 0a0166 1002  1a09 0a05 0a0166 1004 2801";

    #[test]
    fn both_layouts_give_the_same_operation() {
        let operation = MapOperation {
            adds: vec![],
            removes: vec![name("f", MapFieldType::Set)],
            updates: vec![update("f", FieldOperation::Flag(true))],
        };
        for (text, layout) in [(RELEASED, MapOpLayout::Released), (PREVIEW, MapOpLayout::Preview)] {
            let expected = MapOpInterpretation { operation: operation.clone(), remember: Some(layout) };
            assert_eq!(interpret(text), Ok(expected));
        }
    }

    #[test]
    fn the_constructor_writes_the_released_layout() {
        let enable = MapUpdate {
            field: Some(field("f", MapFieldType::Flag)),
            flag_op: Some(FlagOp::Enable.into()),
            ..MapUpdate::default()
        };
        let built = MapOp::released(&[field("f", MapFieldType::Set)], &[enable]);
        assert_eq!(built.encode_to_vec(), hex(RELEASED));
    }

    #[test]
    fn every_kind_of_update() {
        let of = |name, kind| MapUpdate { field: Some(field(name, kind)), ..MapUpdate::default() };
        let updates = [
            MapUpdate { counter_op: Some(CounterOp { increment: Some(-3) }), ..of("c", MapFieldType::Counter) },
            MapUpdate { counter_op: Some(CounterOp { increment: None }), ..of("c", MapFieldType::Counter) },
            MapUpdate {
                set_op: Some(SetOp { adds: vec!["x".into()], removes: vec!["y".into()] }),
                ..of("s", MapFieldType::Set)
            },
            MapUpdate { register_op: Some(Bytes::new()), ..of("r", MapFieldType::Register) },
            MapUpdate {
                flag_op: Some(FlagOp::Disable.into()),
                // Does not fit the type and is ignored.
                register_op: Some("ignored".into()),
                ..of("f", MapFieldType::Flag)
            },
            MapUpdate {
                map_op: Some(MapOp::released(&[field("in", MapFieldType::Map)], &[])),
                ..of("m", MapFieldType::Map)
            },
        ];
        let interpretation = MapOp::released(&[], &updates).interpret(AUTO);
        assert_eq!(
            interpretation.expect("well formed").operation.updates,
            [
                update("c", FieldOperation::Counter(Some(-3))),
                update("c", FieldOperation::Counter(None)),
                update("s", FieldOperation::Set { adds: vec!["x".into()], removes: vec!["y".into()] }),
                update("r", FieldOperation::Register(Bytes::new())),
                update("f", FieldOperation::Flag(false)),
                update(
                    "m",
                    FieldOperation::Map(MapOperation {
                        removes: vec![name("in", MapFieldType::Map)],
                        ..MapOperation::default()
                    })
                ),
            ]
        );
    }

    #[test]
    fn without_evidence_the_remembered_layout_counts() {
        let listed = vec![name("f", MapFieldType::Set)];
        let removes = MapOperation { removes: listed.clone(), ..MapOperation::default() };
        let adds = MapOperation { adds: listed, ..MapOperation::default() };
        for (layout, remembered, expected) in [
            (MapOpLayoutOption::Auto, None, &removes),
            (MapOpLayoutOption::Auto, Some(MapOpLayout::Released), &removes),
            (MapOpLayoutOption::Auto, Some(MapOpLayout::Preview), &adds),
            (MapOpLayoutOption::Released, Some(MapOpLayout::Preview), &removes),
            (MapOpLayoutOption::Preview, None, &adds),
        ] {
            let options = MapOpOptions { layout, remembered, ..AUTO };
            let interpretation = map_op("0a05 0a0166 1002").interpret(options).expect("well formed");
            assert_eq!(&interpretation.operation, expected, "{options:?}");
            assert_eq!(interpretation.remember, remembered, "{options:?}");
        }
    }

    #[test]
    fn an_empty_operation_shows_nothing() {
        let interpretation = interpret("").expect("well formed");
        assert_eq!(interpretation.operation, MapOperation::default());
        assert_eq!(interpretation.remember, None);
    }

    #[test]
    fn evidence_overrides_what_was_remembered() {
        let options = MapOpOptions { remembered: Some(MapOpLayout::Preview), ..AUTO };
        let interpretation = map_op(RELEASED).interpret(options).expect("well formed");
        assert_eq!(interpretation.remember, Some(MapOpLayout::Released));
        assert_eq!(interpretation.operation.removes.len(), 1);
    }

    #[test]
    fn evidence_counts_for_nested_operations() {
        // The inner operation shows nothing by itself, the outer one has it at 2 or at 3.
        let inner = "0a05 0a016d 1005 3207 0a05 0a0166 1002";
        for (outer, layout) in [("1210", MapOpLayout::Released), ("1a10", MapOpLayout::Preview)] {
            let interpretation = interpret(&format!("{outer} {inner}")).expect("well formed");
            assert_eq!(interpretation.remember, Some(layout));
            let FieldOperation::Map(inner) = &interpretation.operation.updates[0].operation else {
                panic!("an update of a map");
            };
            let listed = match layout {
                MapOpLayout::Released => &inner.removes,
                MapOpLayout::Preview => &inner.adds,
            };
            assert_eq!(listed[..], [name("f", MapFieldType::Set)]);
            assert_eq!(inner.adds.len() + inner.removes.len(), 1);
        }
    }

    #[test]
    fn layouts_do_not_mix() {
        let mixed = Err(MapOpError::Malformed(MapOpDefect::MixedLayouts));
        // A MapUpdate and a MapField, both at 2; then a MapUpdate at 2 and another at 3.
        assert_eq!(interpret("1209 0a05 0a0166 1004 2801 1205 0a0166 1002"), mixed);
        assert_eq!(interpret("1209 0a05 0a0166 1004 2801 1a09 0a05 0a0166 1004 2801"), mixed);
        // A released update around a preview remove.
        assert_eq!(interpret("1210 0a05 0a016d 1005 3207 1205 0a0166 1002"), mixed);
    }

    #[test]
    fn a_listener_refuses_the_other_layout() {
        for (layout, text, accepted, found) in [
            (MapOpLayoutOption::Released, PREVIEW, MapOpLayout::Released, MapOpLayout::Preview),
            (MapOpLayoutOption::Preview, RELEASED, MapOpLayout::Preview, MapOpLayout::Released),
        ] {
            let options = MapOpOptions { layout, ..AUTO };
            assert_eq!(map_op(text).interpret(options), Err(MapOpError::LayoutRefused { accepted, found }));
            let options = MapOpOptions { remembered: Some(found), ..options };
            let own = if text == PREVIEW { RELEASED } else { PREVIEW };
            assert!(map_op(own).interpret(options).is_ok());
        }
    }

    #[test]
    fn malformed_elements() {
        for (text, defect) in [
            ("0a03 0a0166", MapOpDefect::TypeMissing),
            ("0a02 1002", MapOpDefect::NameMissing),
            ("0a05 0a0166 1000", MapOpDefect::TypeUnknown { number: 0 }),
            ("0a05 0a0166 1006", MapOpDefect::TypeUnknown { number: 6 }),
            ("1205 0a0166 1006", MapOpDefect::TypeUnknown { number: 6 }),
            ("1202 2801", MapOpDefect::FieldMissing),
            ("1200", MapOpDefect::FieldMissing),
            ("1209 0a05 0a0166 1004 2803", MapOpDefect::FlagOperationUnknown { number: 3 }),
        ] {
            assert_eq!(interpret(text), Err(defect.into()), "{text}");
        }
        assert!(matches!(
            interpret("1209 0a05 0a0166 1004 2a01"),
            Err(MapOpError::Malformed(MapOpDefect::Undecodable(_)))
        ));
    }

    #[test]
    fn every_kind_needs_its_own_operation() {
        for kind in
            [MapFieldType::Counter, MapFieldType::Set, MapFieldType::Register, MapFieldType::Flag, MapFieldType::Map]
        {
            let bare = MapUpdate { field: Some(field("f", kind)), ..MapUpdate::default() };
            assert_eq!(
                MapOp::released(&[], &[bare]).interpret(AUTO),
                Err(MapOpDefect::OperationMissing { kind }.into())
            );
        }
    }

    #[test]
    fn depth_is_bounded() {
        let fitting = nested(AUTO.depth_max, MapOp::default());
        assert!(fitting.interpret(AUTO).is_ok());
        let too_deep = nested(AUTO.depth_max + 1, MapOp::default());
        let error = MapOpError::TooDeep { depth_max: AUTO.depth_max };
        assert_eq!(too_deep.interpret(AUTO), Err(error.clone()));
        // Far deeper than the stack would allow.
        assert_eq!(nested(10_000, MapOp::default()).interpret(AUTO), Err(error));
    }

    #[test]
    fn a_cut_operation_is_an_error_or_a_smaller_one() {
        let inner = MapOp::released(&[field("in", MapFieldType::Register)], &[]);
        for whole in [hex(RELEASED), hex(PREVIEW), nested(3, inner).encode_to_vec().into()] {
            for cut in 0..whole.len() {
                let _: Result<_, _> = MapOp::decode(whole.slice(..cut))
                    .map_err(MapOpDefect::from)
                    .map_err(MapOpError::from)
                    .and_then(|map_op| map_op.interpret(AUTO));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            if let Ok(map_op) = MapOp::decode(Bytes::from(bytes)) {
                let _: Result<_, _> = map_op.interpret(AUTO);
            }
        }
    }
}
