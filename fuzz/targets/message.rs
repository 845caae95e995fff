//! A payload is no message, or one that comes back from its own bytes; so do map operations, in both layouts.
//! Input: a message's code, and its payload.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ombak::message::generated::map_field::MapFieldType;
use ombak::message::generated::map_update::FlagOp;
use ombak::message::generated::{CounterOp, MapField, MapUpdate, SetOp};
use ombak::message::map_op::{
    FieldName, FieldOperation, FieldUpdate, MapOp, MapOpError, MapOpLayout, MapOpLayoutOption, MapOpOptions,
    MapOperation,
};
use ombak::message::{Reply, Request};
use ombak_fuzz::heap;
use ombak_fuzz::requests::{Layout, map_op};

const DEPTH_MAX: usize = 32;

fuzz_target!(|input: &[u8]| {
    if let [code, payload @ ..] = input {
        heap::bounded(input.len(), || run(*code, &Bytes::copy_from_slice(payload)));
    }
});

fn run(code: u8, payload: &Bytes) {
    if let Ok(request) = Request::decode(code, payload.clone()) {
        assert_eq!(request.code().number(), code);
        let encoded = request.encode();
        // Of a message with required fields only unknown ones may have been sent, and nothing is left of it.
        if !encoded.is_empty() {
            assert_eq!(Request::decode(code, encoded).as_ref(), Ok(&request));
        }
        if let Request::DtUpdate(update) = &request
            && let Some(map_op) = update.op.as_ref().and_then(|op| op.map_op.as_ref())
        {
            read_map_op(map_op);
        }
    }
    if let Ok(reply) = Reply::decode(code, payload.clone()) {
        assert_eq!(reply.code().number(), code);
        let encoded = reply.encode();
        assert_eq!(reply.encode_parts().concat(), encoded);
        assert_eq!(Reply::decode(code, encoded).as_ref(), Ok(&reply));
    }
}

fn read_map_op(read: &MapOp) {
    for remembered in [None, Some(MapOpLayout::Released), Some(MapOpLayout::Preview)] {
        let options = MapOpOptions { layout: MapOpLayoutOption::Auto, remembered, depth_max: DEPTH_MAX };
        let interpretation = match read.interpret(options) {
            Ok(interpretation) => interpretation,
            Err(MapOpError::LayoutRefused { .. }) => panic!("both layouts are accepted"),
            Err(_) => continue,
        };
        let operation = interpretation.operation;
        for layout in [Layout::Released, Layout::Preview] {
            // The released layout has no adds.
            if layout == Layout::Released && has_adds(&operation) {
                continue;
            }
            let remembered = Some(match layout {
                Layout::Released => MapOpLayout::Released,
                Layout::Preview => MapOpLayout::Preview,
            });
            let again = write_map_op(&operation, layout).interpret(MapOpOptions { remembered, ..options });
            let again = again.expect("what was written is well formed");
            assert_eq!((again.operation, again.remember), (operation.clone(), remembered));
        }
    }
}

fn has_adds(operation: &MapOperation) -> bool {
    let nested = |update: &FieldUpdate| match &update.operation {
        FieldOperation::Map(nested) => has_adds(nested),
        _ => false,
    };
    !operation.adds.is_empty() || operation.updates.iter().any(nested)
}

fn write_map_op(operation: &MapOperation, layout: Layout) -> MapOp {
    let fields = |names: &[FieldName]| -> Vec<MapField> {
        names.iter().map(|FieldName { name, kind }| field(name, *kind)).collect()
    };
    let updates: Vec<_> = operation.updates.iter().map(|update| write_update(update, layout)).collect();
    map_op(layout, &fields(&operation.adds), &fields(&operation.removes), &updates)
}

fn field(name: &Bytes, kind: MapFieldType) -> MapField {
    MapField { name: Some(name.clone()), r#type: Some(kind.into()) }
}

fn write_update(update: &FieldUpdate, layout: Layout) -> MapUpdate {
    let of = |kind| MapUpdate { field: Some(field(&update.name, kind)), ..MapUpdate::default() };
    match &update.operation {
        FieldOperation::Counter(increment) => {
            let counter_op = Some(CounterOp { increment: *increment });
            MapUpdate { counter_op, ..of(MapFieldType::Counter) }
        }
        FieldOperation::Set { adds, removes } => {
            let set_op = Some(SetOp { adds: adds.clone(), removes: removes.clone() });
            MapUpdate { set_op, ..of(MapFieldType::Set) }
        }
        FieldOperation::Register(value) => MapUpdate { register_op: Some(value.clone()), ..of(MapFieldType::Register) },
        FieldOperation::Flag(enable) => {
            let flag_op = if *enable { FlagOp::Enable } else { FlagOp::Disable };
            MapUpdate { flag_op: Some(flag_op.into()), ..of(MapFieldType::Flag) }
        }
        FieldOperation::Map(nested) => {
            MapUpdate { map_op: Some(write_map_op(nested, layout)), ..of(MapFieldType::Map) }
        }
    }
}
