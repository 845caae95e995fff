//! What every store must do. Each function here is run on each store.

use std::ops::Bound;

use bytes::Bytes;
use ombak::domain::cell::{CellKey, Element, FieldKind, Path, Payload, Selection};
use ombak::domain::context::CausalContext;
use ombak::domain::dot::{ActorId, Dot, Time};
use ombak::domain::index::{IndexRange, Posting};
use ombak::domain::key::{BucketName, ObjectName};
use ombak::domain::object::Content;
use ombak::store::memory::MemoryStore;
use ombak::store::{Horizon, Store, StoreError};

use super::support::*;

suite! {
    a_delta_is_read_when_it_is_committed
    selections_take_what_they_name
    a_later_put_replaces_an_earlier_one
    a_small_field_is_removed
    a_large_field_is_removed
    a_field_keeps_what_its_floor_does_not_cover
    floors_inside_floors
    a_floor_rises_while_its_field_is_swept
    two_floors_of_one_delta_may_cover_the_same
    a_content_ends_and_begins_in_one_delta
    a_content_of_two_actors_ends_actor_by_actor
    a_floor_of_a_strange_actor_ends_nothing
    a_floor_of_an_unknown_object_leaves_nothing
    elements_are_removed
    siblings_are_removed
    siblings_of_two_actors_may_share_a_time
    cells_of_many_actors_lie_side_by_side
    an_object_is_gone_when_its_last_cell_is
    keys_are_listed_in_pages
    tombstones_are_not_listed
    data_types_are_listed
    buckets_are_listed_in_pages
    names_may_be_any_bytes
    names_may_be_long
    buckets_may_share_a_long_beginning
    fields_and_members_may_be_long
    long_fields_are_swept_apart
    an_index_holds_the_entries_of_all_values
    entries_go_with_their_values
    entries_that_are_unchecked_are_in_no_index
    terms_are_in_order
    a_range_has_both_its_ends
    a_range_is_resumed_behind_any_posting
    indexes_do_not_mix
    keys_are_an_index
    terms_and_keys_may_be_long
    records_are_kept
    record_names_may_be_any_bytes
    many_writes_may_wait_at_once
    a_closed_store_takes_no_writes
}

async fn a_delta_is_read_when_it_is_committed(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let map = field(&Path::root(), "m", FieldKind::Map);
    let at = |path: &Path, element| CellKey { path: path.clone(), element };
    let keys = vec![
        presence(&map),
        at(&field(&map, "c", FieldKind::Counter), Element::Counter),
        at(&field(&map, "r", FieldKind::Register), Element::Register),
        at(&field(&map, "f", FieldKind::Flag), Element::Flag),
        at(&Path::root(), Element::Hll),
        member(&field(&map, "s", FieldKind::Set), "x"),
    ];
    let name = object("k");
    let dot = writer.update(&name, vec![], keys.clone()).await;
    let sibling_dot = writer.put(&name, vec![], full_value()).await;

    let cells = read_all(store, &name).await;
    assert_eq!(cells.all().len(), keys.len() + 2);
    for key in keys.into_iter().chain([presence(&Path::root())]) {
        let [cell] = cells.at(&key) else { panic!("{key:?}") };
        assert_eq!((cell.dot, &cell.payload), (dot, &payload(&key.element, dot.time)));
    }
    let sibling = CellKey { path: Path::root(), element: Element::Sibling(sibling_dot.time) };
    assert_eq!(cells.at(&sibling)[0].payload, full_value());
    assert_eq!(cells.data_type_clock(), context(&[dot]));

    assert!(read_all(store, &object("other")).await.all().is_empty());
}

async fn selections_take_what_they_name(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    // `a` and `a\0b` share their beginning, and so do fields of one name and two kinds.
    let (a, longer) = (set("a"), set("a\0b"));
    let map = field(&Path::root(), "a", FieldKind::Map);
    let inner = field(&map, "s", FieldKind::Set);
    writer.update(&name, vec![], [&a, &longer, &map, &inner].map(|path| members(path, 0..2)).concat()).await;
    let dot = writer.put(&name, vec![], value("v")).await;
    let sibling = CellKey { path: Path::root(), element: Element::Sibling(dot.time) };

    let taken = async |selections: &[Selection]| -> Vec<CellKey> {
        read(store, &name, selections).await.all().iter().map(|cell| cell.key.clone()).collect()
    };
    assert_eq!(taken(&[]).await, []);
    assert_eq!(taken(&[Selection::Subtree(a.clone())]).await, members(&a, 0..2));
    assert_eq!(taken(&[Selection::Subtree(map.clone())]).await, [members(&map, 0..2), members(&inner, 0..2)].concat());
    assert_eq!(taken(&[Selection::Key(member(&a, "000001"))]).await, [member(&a, "000001")]);
    assert_eq!(taken(&[Selection::Key(member(&a, "000002"))]).await, []);
    assert_eq!(taken(&[Selection::Siblings]).await, std::slice::from_ref(&sibling));
    assert_eq!(taken(&[Selection::Key(sibling.clone())]).await, std::slice::from_ref(&sibling));
    let other = CellKey { path: Path::root(), element: Element::Sibling(Time(99)) };
    assert_eq!(taken(&[Selection::Key(other)]).await, []);
    // What two selections ask for comes once, and all in the order of keys.
    let both = [Selection::Subtree(inner.clone()), Selection::Subtree(map.clone()), Selection::Siblings];
    assert_eq!(taken(&both).await, [vec![sibling], members(&map, 0..2), members(&inner, 0..2)].concat());
    assert_eq!(taken(&[Selection::Subtree(set("absent"))]).await, []);
}

async fn a_later_put_replaces_an_earlier_one(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let key = CellKey { path: field(&Path::root(), "r", FieldKind::Register), element: Element::Register };
    writer.update(&name, vec![], vec![key.clone()]).await;
    let dot = writer.update(&name, vec![], vec![key.clone()]).await;
    let cells = read_all(store, &name).await;
    assert_eq!(cells.at(&key).len(), 1);
    assert_eq!(cells.at(&key)[0].payload, payload(&Element::Register, dot.time));
}

async fn a_small_field_is_removed(store: &dyn Store) {
    a_field_is_removed(store, 5).await;
}

async fn a_large_field_is_removed(store: &dyn Store) {
    a_field_is_removed(store, 1_500).await;
}

async fn a_field_is_removed(store: &dyn Store, size: u32) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let (kept, removed) = (set("a"), set("b"));
    let dot = writer.update(&name, vec![], [members(&kept, 0..3), members(&removed, 0..size)].concat()).await;
    writer.update(&name, vec![subtree(&removed, &context(&[dot]))], vec![presence(&Path::root())]).await;
    let rest = [vec![presence(&Path::root())], members(&kept, 0..3)].concat();
    assert_eq!(live(store, &name).await, rest);
    assert!(read(store, &name, &[Selection::Key(member(&removed, "000001"))]).await.all().is_empty());
    assert!(read(store, &name, &[Selection::Subtree(removed.clone())]).await.all().is_empty());
    // A floor ends what was before it and nothing that comes after.
    writer.update(&name, vec![], members(&removed, 1..3)).await;
    assert_eq!(live(store, &name).await, [rest, members(&removed, 1..3)].concat());
}

async fn a_field_keeps_what_its_floor_does_not_cover(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let path = set("s");
    let dot = writer.update(&name, vec![], members(&path, 0..700)).await;
    writer.update(&name, vec![], members(&path, 300..310)).await;
    writer.update(&name, vec![subtree(&path, &context(&[dot]))], vec![]).await;
    assert_eq!(live(store, &name).await, [vec![presence(&Path::root())], members(&path, 300..310)].concat());
}

async fn floors_inside_floors(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let outer = field(&Path::root(), "m", FieldKind::Map);
    let (inner, beside) = (field(&outer, "s", FieldKind::Set), field(&outer, "t", FieldKind::Set));
    let keys = [members(&outer, 0..1), members(&inner, 0..600), members(&beside, 0..600)].concat();
    let first = writer.update(&name, vec![], keys).await;
    let second = writer.update(&name, vec![subtree(&inner, &context(&[first]))], members(&inner, 5..7)).await;
    let whole = |inside: Vec<CellKey>| [vec![presence(&Path::root())], members(&outer, 0..1), inside].concat();
    assert_eq!(live(store, &name).await, whole([members(&inner, 5..7), members(&beside, 0..600)].concat()));
    // The outer floor is the older one: what came after it stays.
    writer.update(&name, vec![subtree(&outer, &context(&[first]))], vec![]).await;
    assert_eq!(live(store, &name).await, [vec![presence(&Path::root())], members(&inner, 5..7)].concat());
    assert_eq!(read(store, &name, &[Selection::Key(member(&beside, "000003"))]).await.all(), []);
    assert_eq!(read(store, &name, &[Selection::Subtree(beside.clone())]).await.all(), []);
    let floors = vec![subtree(&inner, &context(&[second])), subtree(&outer, &context(&[second]))];
    writer.update(&name, floors, vec![]).await;
    assert_eq!(live(store, &name).await, [presence(&Path::root())]);
    writer.update(&name, vec![], members(&inner, 0..2)).await;
    assert_eq!(live(store, &name).await, [vec![presence(&Path::root())], members(&inner, 0..2)].concat());
}

async fn a_floor_rises_while_its_field_is_swept(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let path = set("s");
    let mut all_written = Vec::new();
    for _ in 0..6 {
        let (dot, add) = writer.send(&name, vec![], members(&path, 0..2_000));
        let (_, remove) = writer.send(&name, vec![subtree(&path, &context(&[dot]))], members(&path, 7..9));
        all_written.extend([add, remove]);
        while all_written.len() > 1 {
            durable(store, all_written.remove(0)).await.unwrap();
        }
    }
    for written in all_written {
        durable(store, written).await.unwrap();
    }
    assert_eq!(live(store, &name).await, [vec![presence(&Path::root())], members(&path, 7..9)].concat());
}

async fn two_floors_of_one_delta_may_cover_the_same(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let first = writer.put(&name, vec![], value("a")).await;
    let seen = context(&[first]);
    let kept = writer.put(&name, vec![], value("b")).await;
    let sibling = CellKey { path: Path::root(), element: Element::Sibling(first.time) };
    writer.update(&name, vec![element(sibling, &seen), siblings(&seen)], vec![]).await;
    let cells = read_all(store, &name).await;
    assert_eq!(cells.siblings().map(|(dot, _)| dot).collect::<Vec<_>>(), [kept]);
    assert_eq!(keys(store, &bucket("b"), 5).await, ["k"]);
    writer.update(&name, vec![siblings(&context(&[kept]))], vec![]).await;
    assert_eq!(keys(store, &bucket("b"), 5).await.len(), 0);
}

async fn a_content_ends_and_begins_in_one_delta(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    for size in [3, 900] {
        let dot = writer.update(&name, vec![], members(&set("old"), 0..size)).await;
        let inner = writer.update(&name, vec![subtree(&set("old"), &context(&[dot]))], members(&set("more"), 0..size));
        let seen = context(&[inner.await]);
        writer.update(&name, vec![subtree(&Path::root(), &seen)], members(&set("new"), 0..2)).await;
        assert_eq!(live(store, &name).await, [vec![presence(&Path::root())], members(&set("new"), 0..2)].concat());
        assert_eq!(keys(store, &bucket("b"), 5).await, ["k"]);
    }
}

async fn a_content_of_two_actors_ends_actor_by_actor(store: &dyn Store) {
    for size in [3, 400] {
        let name = object(format!("k{size}"));
        let mut writer = Writer::new(store);
        let first = writer.update(&name, vec![], members(&set("a"), 0..size)).await;
        writer.actor = ActorId(2);
        let second = writer.update(&name, vec![], members(&set("b"), 0..size)).await;
        writer.update(&name, vec![subtree(&Path::root(), &context(&[first]))], vec![]).await;
        assert_eq!(live(store, &name).await, [vec![presence(&Path::root())], members(&set("b"), 0..size)].concat());
        // What the first floor has ended is of no account for the second, swept or not.
        writer.update(&name, vec![subtree(&Path::root(), &context(&[second]))], vec![]).await;
        assert_eq!(live(store, &name).await, []);
        assert_eq!(keys(store, &bucket("b"), 5).await.len(), 0);
    }
}

async fn a_floor_of_a_strange_actor_ends_nothing(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let keys = members(&set("s"), 0..300);
    let dot = writer.update(&name, vec![], keys.clone()).await;
    let mut seen: CausalContext = context(&[Dot { actor: ActorId(99), time: Time(99) }]);
    for target in [&set("s"), &Path::root()] {
        writer.update(&name, vec![subtree(target, &seen), siblings(&seen)], vec![]).await;
        assert_eq!(live(store, &name).await, [vec![presence(&Path::root())], keys.clone()].concat());
    }
    seen.see(dot);
    writer.update(&name, vec![subtree(&set("s"), &seen)], vec![]).await;
    assert_eq!(live(store, &name).await, [presence(&Path::root())]);
}

async fn a_floor_of_an_unknown_object_leaves_nothing(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let seen = context(&[Dot { actor: ACTOR, time: Time(0) }]);
    let floors = vec![subtree(&Path::root(), &seen), siblings(&seen), element(member(&set("s"), "x"), &seen)];
    writer.update(&name, floors, vec![]).await;
    assert_eq!(live(store, &name).await, []);
    assert_eq!(keys(store, &bucket("b"), 5).await.len(), 0);
}

async fn elements_are_removed(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let path = set("s");
    let flag = CellKey { path: field(&Path::root(), "f", FieldKind::Flag), element: Element::Flag };
    let first = writer.update(&name, vec![], [members(&path, 0..3), vec![flag.clone()]].concat()).await;
    writer.update(&name, vec![], vec![member(&path, "000001")]).await;
    let seen = context(&[first]);
    let removed = [member(&path, "000000"), member(&path, "000001"), member(&path, "absent"), flag];
    writer.update(&name, removed.into_iter().map(|key| element(key, &seen)).collect(), vec![]).await;
    // The second member was added again after what the floor covers.
    assert_eq!(live(store, &name).await, [vec![presence(&Path::root())], members(&path, 1..3)].concat());
}

async fn siblings_are_removed(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let mut dots = Vec::new();
    for text in ["a", "b", "c"] {
        dots.push(writer.put(&name, vec![], value(text)).await);
    }
    let values = async || -> Vec<String> {
        let cells = read_all(store, &name).await;
        cells.siblings().map(|(_, content)| String::from_utf8(content.value.to_vec()).unwrap()).collect()
    };
    assert_eq!(values().await, ["a", "b", "c"]);
    let middle = CellKey { path: Path::root(), element: Element::Sibling(dots[1].time) };
    writer.update(&name, vec![element(middle, &context(&dots[..1]))], vec![]).await;
    assert_eq!(values().await, ["a", "b", "c"]);
    let middle = CellKey { path: Path::root(), element: Element::Sibling(dots[1].time) };
    writer.update(&name, vec![element(middle, &context(&dots))], vec![]).await;
    assert_eq!(values().await, ["a", "c"]);
    writer.put(&name, vec![siblings(&context(&dots[..1]))], value("d")).await;
    assert_eq!(values().await, ["c", "d"]);
    // Siblings and data type content are apart.
    writer.update(&name, vec![siblings(&context(&dots))], vec![presence(&Path::root())]).await;
    assert_eq!(values().await, ["d"]);
    writer.update(&name, vec![subtree(&Path::root(), &context(&dots))], vec![]).await;
    assert_eq!(values().await, ["d"]);
}

async fn siblings_of_two_actors_may_share_a_time(store: &dyn Store) {
    let name = object("k");
    let (mut first, mut second) = (Writer::new(store), Writer::new(store));
    second.actor = ActorId(2);
    let a = first.put(&name, vec![], value("a")).await;
    let b = second.put(&name, vec![], value("b")).await;
    assert_eq!(a.time, b.time);
    assert_eq!(read_all(store, &name).await.siblings().count(), 2);
    first.update(&name, vec![siblings(&context(&[b]))], vec![]).await;
    assert_eq!(read_all(store, &name).await.siblings().map(|(dot, _)| dot).collect::<Vec<_>>(), [a]);
}

async fn cells_of_many_actors_lie_side_by_side(store: &dyn Store) {
    let name = object("k");
    let mut writer = Writer::new(store);
    let key = CellKey { path: field(&Path::root(), "c", FieldKind::Counter), element: Element::Counter };
    let mut dots = Vec::new();
    for actor in [3, 1, 2] {
        writer.actor = ActorId(actor);
        dots.push(writer.update(&name, vec![], vec![key.clone()]).await);
    }
    let actors = async |selection| -> Vec<u64> {
        read(store, &name, &[selection]).await.at(&key).iter().map(|cell| cell.dot.actor.0).collect()
    };
    assert_eq!(actors(Selection::Key(key.clone())).await, [1, 2, 3]);
    assert_eq!(actors(Selection::Subtree(Path::root())).await, [1, 2, 3]);
    writer.update(&name, vec![element(key.clone(), &context(&dots[..1]))], vec![]).await;
    assert_eq!(actors(Selection::Key(key.clone())).await, [1, 2]);
    writer.update(&name, vec![subtree(&key.path, &context(&dots[1..2]))], vec![]).await;
    assert_eq!(actors(Selection::Subtree(Path::root())).await, [2]);
}

async fn an_object_is_gone_when_its_last_cell_is(store: &dyn Store) {
    let name = object("k");
    let mut writer = Writer::new(store);
    for _ in 0..2 {
        let value_dot = writer.put(&name, vec![], value("a")).await;
        let content_dot = writer.update(&name, vec![], members(&set("s"), 0..3)).await;
        let seen = context(&[value_dot, content_dot]);
        writer.update(&name, vec![subtree(&Path::root(), &seen)], vec![]).await;
        assert_eq!(keys(store, &bucket("b"), 5).await, ["k"]);
        writer.update(&name, vec![siblings(&seen)], vec![]).await;
        assert_eq!(keys(store, &bucket("b"), 5).await.len(), 0);
        assert_eq!(live(store, &name).await, []);
    }
}

async fn keys_are_listed_in_pages(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let mut names: Vec<_> = (0..7).map(|number| format!("key{number}")).collect();
    // Names beside the bucket's own on both sides.
    for (bucket_name, key) in [("a", "x"), ("b\0", "y"), ("ba", "z"), ("", "w")] {
        writer.put(&ObjectName { bucket: bucket(bucket_name), key: bytes(key) }, vec![], value("v")).await;
    }
    for key in &names {
        writer.put(&object(key), vec![], value("v")).await;
    }
    names.sort();
    for page in [1, 2, 3, 7, 100] {
        assert_eq!(keys(store, &bucket("b"), page).await, names);
    }
    assert_eq!(store.keys(&bucket("b"), None, 0, &Horizon::default()).await.unwrap().len(), 0);
    assert_eq!(store.keys(&bucket("b"), Some(&bytes("key3")), 2, &Horizon::default()).await.unwrap(), ["key4", "key5"]);
    assert_eq!(store.keys(&bucket("b"), Some(&bytes("key3x")), 1, &Horizon::default()).await.unwrap(), ["key4"]);
    assert_eq!(keys(store, &bucket(""), 5).await, ["w"]);
    let other_type = BucketName { bucket_type: bytes("other"), bucket: bytes("b") };
    assert_eq!(keys(store, &other_type, 5).await.len(), 0);
}

async fn tombstones_are_not_listed(store: &dyn Store) {
    let mut writer = Writer::new(store);
    for key in ["a", "b", "c"] {
        writer.put(&object(key), vec![], tombstone()).await;
    }
    let hidden = BucketName::new(None, bytes("hidden"));
    writer.put(&ObjectName { bucket: hidden.clone(), key: bytes("x") }, vec![], tombstone()).await;
    writer.put(&object("b"), vec![], value("v")).await;
    assert_eq!(keys(store, &bucket("b"), 1).await, ["b"]);
    assert_eq!(keys(store, &hidden, 1).await.len(), 0);
    assert_eq!(buckets(store, 1).await, ["b"]);
    assert_eq!(read_all(store, &object("a")).await.siblings().count(), 1);
}

async fn data_types_are_listed(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let dot = writer.update(&object("set"), vec![], members(&Path::root(), 0..2)).await;
    writer.update(&object("empty"), vec![], vec![presence(&Path::root())]).await;
    assert_eq!(keys(store, &bucket("b"), 5).await, ["empty", "set"]);
    let floors = vec![subtree(&Path::root(), &context(&[dot]))];
    writer.put(&object("set"), floors, tombstone()).await;
    assert_eq!(keys(store, &bucket("b"), 5).await, ["empty"]);
}

async fn buckets_are_listed_in_pages(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let mut names: Vec<&[u8]> = vec![b"", b"\0", b"\0\0", b"\xff", b"\xff\xff", b"a", b"a\0", b"ab", b"b"];
    for name in &names {
        for key in 0..3 {
            let name = ObjectName { bucket: bucket(name), key: bytes(key.to_string()) };
            writer.put(&name, vec![], value("v")).await;
        }
    }
    let elsewhere = BucketName { bucket_type: bytes("defaults"), bucket: bytes("x") };
    writer.put(&ObjectName { bucket: elsewhere, key: bytes("k") }, vec![], value("v")).await;
    names.sort();
    for page in [1, 2, 3, 100] {
        assert_eq!(buckets(store, page).await, names);
    }
    assert_eq!(store.buckets(&bytes("default"), None, 0, &Horizon::default()).await.unwrap().len(), 0);
    assert_eq!(store.buckets(&bytes("default"), Some(&bytes("aa")), 1, &Horizon::default()).await.unwrap(), ["ab"]);
    assert_eq!(store.buckets(&bytes("defaults"), None, 5, &Horizon::default()).await.unwrap(), ["x"]);
    assert_eq!(store.buckets(&bytes("defaul"), None, 5, &Horizon::default()).await.unwrap().len(), 0);
}

async fn names_may_be_any_bytes(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let mut names: Vec<&[u8]> = vec![b"", b"\0", b"\0\xff", b"\0\x01", b"\xff", b"\xff\0", b"a", b"a\0", b"a\0b"];
    for name in &names {
        writer.put(&object(name), vec![], value(&format!("{name:?}"))).await;
    }
    names.sort();
    for page in [1, 4, 100] {
        assert_eq!(keys(store, &bucket("b"), page).await, names);
    }
    for name in names {
        let cells = read_all(store, &object(name)).await;
        assert_eq!(cells.all()[0].payload, value(&format!("{name:?}")));
    }
}

/// Long names that differ in their last byte only, and some in their length.
fn long_names() -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    for length in [8_000, 8_180, 8_192, 9_000, 65_535, 65_536] {
        for last in [b'a', b'b', 0, 0xff] {
            let mut name = vec![b'x'; length];
            name[length - 1] = last;
            names.push(name);
        }
    }
    // Escaping doubles these.
    names.push(vec![0; 65_536]);
    names.push(vec![0xff; 65_536]);
    names.sort();
    names
}

async fn names_may_be_long(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let names = long_names();
    for name in &names {
        writer.put(&object(name), vec![], value(&name.len().to_string())).await;
    }
    writer.put(&object("x"), vec![], value("short")).await;
    let expected = [vec![b"x".to_vec()], names.clone()].concat();
    let mut expected: Vec<_> = expected.iter().map(bytes).collect();
    expected.sort();
    for page in [1, 5, 100] {
        assert_eq!(keys(store, &bucket("b"), page).await, expected);
    }
    for name in &names {
        let cells = read_all(store, &object(name)).await;
        assert_eq!(cells.all()[0].payload, value(&name.len().to_string()));
    }
    let seen = context(&[Dot { actor: ACTOR, time: Time(1_000) }]);
    for name in &names {
        writer.update(&object(name), vec![siblings(&seen)], vec![]).await;
    }
    assert_eq!(keys(store, &bucket("b"), 100).await, ["x"]);
}

async fn buckets_may_share_a_long_beginning(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let names = long_names();
    for name in &names {
        for key in ["1", "2"] {
            writer.put(&ObjectName { bucket: bucket(name), key: bytes(key) }, vec![], value("v")).await;
        }
    }
    writer.put(&ObjectName { bucket: bucket("y"), key: bytes("1") }, vec![], value("v")).await;
    let mut expected: Vec<_> = names.iter().map(bytes).chain([bytes("y")]).collect();
    expected.sort();
    for page in [1, 2, 7, 100] {
        assert_eq!(buckets(store, page).await, expected);
    }
    for name in names {
        assert_eq!(keys(store, &bucket(name), 1).await, ["1", "2"]);
    }
}

async fn fields_and_members_may_be_long(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let fields: Vec<_> = long_names().iter().map(set).collect();
    let long = |path: &Path| long_names().iter().map(|name| member(path, name)).collect::<Vec<_>>();
    for path in &fields {
        writer.update(&name, vec![], vec![presence(path), member(path, "m")]).await;
    }
    let dot = writer.update(&name, vec![], long(&fields[9])).await;
    let seen = context(&[dot]);
    for path in &fields {
        let expected = [vec![presence(path)], if path == &fields[9] { long(path) } else { vec![] }];
        let mut expected = [expected.concat(), vec![member(path, "m")]].concat();
        expected.sort();
        let cells = read(store, &name, &[Selection::Subtree(path.clone())]).await;
        assert_eq!(cells.all().iter().map(|cell| cell.key.clone()).collect::<Vec<_>>(), expected);
    }
    assert_eq!(read(store, &name, &[Selection::Key(long(&fields[9])[3].clone())]).await.all().len(), 1);
    writer.update(&name, vec![element(long(&fields[9])[3].clone(), &seen)], vec![]).await;
    assert_eq!(read(store, &name, &[Selection::Key(long(&fields[9])[3].clone())]).await.all().len(), 0);
    writer.update(&name, vec![subtree(&fields[9], &seen)], vec![]).await;
    let mut expected: Vec<_> = fields.iter().filter(|path| *path != &fields[9]).cloned().collect();
    expected.sort();
    let expected: Vec<_> = expected.iter().flat_map(|path| [presence(path), member(path, "m")]).collect();
    assert_eq!(live(store, &name).await, [vec![presence(&Path::root())], expected].concat());
}

async fn long_fields_are_swept_apart(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    // Their rows lie among each other: the cut key is the same.
    let [a, b] = ["a", "b"].map(|last| set(format!("{}{last}", "x".repeat(9_000))));
    let dot = writer.update(&name, vec![], [members(&a, 0..200), members(&b, 0..200)].concat()).await;
    writer.update(&name, vec![subtree(&a, &context(&[dot]))], members(&a, 7..9)).await;
    let rest = [vec![presence(&Path::root())], members(&a, 7..9), members(&b, 0..200)].concat();
    assert_eq!(live(store, &name).await, rest);
    let both = [Selection::Subtree(a), Selection::Subtree(b)];
    assert_eq!(read(store, &name, &both).await.all().len(), rest.len() - 1);
}

async fn an_index_holds_the_entries_of_all_values(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let all = between("t_bin", "", "z");
    let first = writer.put(&name, vec![], indexed("1", &[("t_bin", "a"), ("t_bin", "b")])).await;
    let second = writer.put(&name, vec![], indexed("2", &[("t_bin", "b"), ("t_bin", "c")])).await;
    assert_eq!(found(store, &all).await, ["a:k", "b:k", "c:k"]);
    // Both hold `b`: it stays while one of them is there.
    writer.put(&name, vec![siblings(&context(&[first]))], value("3")).await;
    assert_eq!(found(store, &all).await, ["b:k", "c:k"]);
    writer.put(&name, vec![siblings(&context(&[second]))], value("4")).await;
    assert_eq!(found(store, &all).await, Vec::<String>::new());
}

async fn entries_go_with_their_values(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let all = between("t_bin", "", "z");
    let mut dot = writer.put(&name, vec![], indexed("1", &[("t_bin", "old"), ("t_bin", "same")])).await;
    dot =
        writer.put(&name, vec![siblings(&context(&[dot]))], indexed("2", &[("t_bin", "new"), ("t_bin", "same")])).await;
    assert_eq!(found(store, &all).await, ["new:k", "same:k"]);
    dot = writer.put(&name, vec![siblings(&context(&[dot]))], tombstone()).await;
    assert_eq!(found(store, &all).await, Vec::<String>::new());
    dot = writer.put(&name, vec![siblings(&context(&[dot]))], indexed("3", &[("t_bin", "again")])).await;
    assert_eq!(found(store, &all).await, ["again:k"]);
    // By the floor of one value, and with nothing left of the object.
    let sibling = CellKey { path: Path::root(), element: Element::Sibling(dot.time) };
    writer.update(&name, vec![element(sibling, &context(&[dot]))], vec![]).await;
    assert_eq!(found(store, &all).await, Vec::<String>::new());
    // A value that has grown out of its row, and back.
    let long = "x".repeat(10_000);
    dot = writer.put(&name, vec![], indexed(&long, &[("t_bin", "long")])).await;
    dot = writer.put(&name, vec![siblings(&context(&[dot]))], indexed("4", &[("t_bin", "short")])).await;
    assert_eq!(found(store, &all).await, ["short:k"]);
    writer.update(&name, vec![siblings(&context(&[dot]))], vec![]).await;
    assert_eq!(found(store, &all).await, Vec::<String>::new());
}

async fn entries_that_are_unchecked_are_in_no_index(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let content = Content {
        indexes: vec![(bytes("t_bin"), bytes("a")), (bytes("x_int"), bytes("none"))],
        indexes_unchecked: true,
        ..Content::default()
    };
    let dot = writer.put(&object("k"), vec![], Payload::Content(Box::new(content.clone()))).await;
    assert_eq!(found(store, &between("t_bin", "", "z")).await, Vec::<String>::new());
    assert_eq!(read_all(store, &object("k")).await.siblings().collect::<Vec<_>>(), [(dot, &content)]);
    // Nor are those of a tombstone.
    let deleted = Content { indexes: vec![(bytes("t_bin"), bytes("a"))], deleted: true, ..Content::default() };
    writer.put(&object("gone"), vec![], Payload::Content(Box::new(deleted))).await;
    assert_eq!(found(store, &between("t_bin", "", "z")).await, Vec::<String>::new());
}

async fn terms_are_in_order(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let huge = "123456789012345678901234567890123456789012345678901234567890";
    let negative = format!("-{huge}");
    let numbers = [&negative, "-256", "-255", "-10", "-9", "-1", "0", "1", "9", "10", "255", "256", "1000", huge];
    let texts = ["", "\0", "\0\0", "\x01", "A", "a", "a\0", "a\0b", "a\x01", "aa", "b"];
    for (key, number) in numbers.iter().rev().enumerate() {
        writer.put(&object(format!("n{key}")), vec![], indexed("v", &[("n_int", number)])).await;
    }
    for (key, text) in texts.iter().rev().enumerate() {
        writer.put(&object(format!("t{key:02}")), vec![], indexed("v", &[("t_bin", text)])).await;
    }
    let terms = async |range: IndexRange| -> Vec<String> {
        found(store, &range).await.iter().map(|posting| posting.split(':').next().unwrap().to_owned()).collect()
    };
    let bound = format!("9{huge}");
    assert_eq!(terms(between("n_int", format!("-{bound}"), bound)).await, numbers);
    assert_eq!(terms(between("n_int", "-10", "10")).await, numbers[3..10]);
    assert_eq!(terms(between("t_bin", "", "z")).await, texts);
    // Equal terms are in the order of their keys.
    for key in ["k2", "k1", "K", "k", "k10", "\u{e9}"] {
        writer.put(&object(key), vec![], indexed("v", &[("s_bin", "x")])).await;
    }
    assert_eq!(found(store, &between("s_bin", "x", "x")).await, ["x:K", "x:k", "x:k1", "x:k10", "x:k2", "x:\u{e9}"]);
}

async fn a_range_has_both_its_ends(store: &dyn Store) {
    let mut writer = Writer::new(store);
    for term in ["a", "b", "ba", "c"] {
        writer.put(&object(term), vec![], indexed("v", &[("t_bin", term)])).await;
    }
    for (min, max, expected) in [
        ("a", "b", vec!["a:a", "b:b"]),
        ("b", "b", vec!["b:b"]),
        ("aa", "bz", vec!["b:b", "ba:ba"]),
        ("c", "a", vec![]),
        ("d", "z", vec![]),
        ("", "", vec![]),
    ] {
        assert_eq!(found(store, &between("t_bin", min, max)).await, expected, "{min} to {max}");
    }
    assert_eq!(
        store.postings(&bucket("b"), &between("t_bin", "a", "z"), None, 0, &Horizon::default()).await.unwrap(),
        []
    );
}

async fn a_range_is_resumed_behind_any_posting(store: &dyn Store) {
    let mut writer = Writer::new(store);
    for number in ["-1", "1", "3"] {
        for key in ["k1", "k2"] {
            writer.put(&object(format!("{key}{number}")), vec![], indexed("v", &[("n_int", number)])).await;
        }
    }
    let range = between("n_int", "-1", "3");
    let behind = async |term: &str, key: &str| -> Vec<Bytes> {
        let IndexRange::Terms { from, .. } = between("n_int", term, term) else { panic!() };
        let after = Posting { term: Some(from), key: bytes(key) };
        let found = store.postings(&bucket("b"), &range, Some(&after), 100, &Horizon::default()).await.unwrap();
        found.into_iter().map(|posting| posting.key).collect()
    };
    assert_eq!(behind("1", "k11").await, ["k21", "k13", "k23"]);
    assert_eq!(behind("1", "k15").await, ["k21", "k13", "k23"]);
    assert_eq!(behind("2", "").await, ["k13", "k23"]);
    assert_eq!(behind("3", "k3").await.len(), 0);
    assert_eq!(behind("99", "").await.len(), 0);
    assert_eq!(behind("-99", "z").await.len(), 6);
}

async fn indexes_do_not_mix(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let other_type = BucketName { bucket_type: bytes("other"), bucket: bytes("b") };
    let buckets = [bucket("b"), bucket("a"), bucket("b\0"), bucket("ba"), other_type];
    for (number, bucket) in buckets.iter().enumerate() {
        let number = number.to_string();
        let name = ObjectName { bucket: bucket.clone(), key: bytes(&number) };
        let entries = [("t_bin", &number[..]), ("t\0_bin", "x"), ("tt_bin", "x"), ("t_int", "7")];
        writer.put(&name, vec![], indexed("v", &entries)).await;
    }
    for (number, bucket) in buckets.iter().enumerate() {
        let all = postings(store, bucket, &between("t_bin", "", "z"), 2).await;
        let keys: Vec<_> = all.into_iter().map(|posting| posting.key).collect();
        assert_eq!(keys, [number.to_string()]);
    }
}

async fn keys_are_an_index(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let long = |last: &str| "key4".to_owned() + &"x".repeat(9_000) + last;
    let mut names: Vec<String> = (0..7).map(|number| format!("key{number}")).collect();
    names.extend(["1", "2", "3", "4", "5"].map(long));
    names.sort();
    for key in names.iter().rev() {
        writer.put(&object(key), vec![], value("v")).await;
    }
    writer.put(&object("key2x"), vec![], tombstone()).await;
    writer.put(&ObjectName { bucket: bucket("c"), key: bytes("key3") }, vec![], value("v")).await;
    writer.update(&object("key9"), vec![], members(&Path::root(), 0..2)).await;
    names.push("key9".into());

    assert_eq!(found(store, &IndexRange::BUCKET).await, names);
    assert_eq!(found(store, &between("$key", "key1x", "key3")).await, ["key2", "key3"]);
    assert_eq!(found(store, &between("$key", "key9", "key1")).await, Vec::<String>::new());
    assert_eq!(found(store, &between("$key", long("2"), long("4"))).await, ["2", "3", "4"].map(long));
    let keys = |from, to| IndexRange::Keys { from, to };
    let excluded = |key: &str| Bound::Excluded(bytes(key));
    assert_eq!(found(store, &keys(excluded("key1"), excluded("key3"))).await, ["key2"]);
    assert_eq!(found(store, &keys(excluded(&long("2")), excluded(&long("4")))).await, [long("3")]);
    assert_eq!(found(store, &keys(excluded("key5"), Bound::Unbounded)).await, ["key6", "key9"]);
    assert_eq!(found(store, &keys(Bound::Unbounded, excluded("key1"))).await, ["key0"]);
}

async fn terms_and_keys_may_be_long(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let long = |last: &str| "x".repeat(9_000) + last;
    let terms = ["b".to_owned(), long(""), long("1"), long("2"), long("3"), "xy".to_owned(), "z".to_owned()];
    let keys = ["k".to_owned(), long("1"), long("2")];
    for term in terms.iter().rev() {
        for key in keys.iter().rev() {
            let name = object(format!("{key}{}", term.len()));
            writer.put(&name, vec![], indexed("v", &[("t_bin", term), ("n_int", "5")])).await;
        }
    }
    let expected = |term: &String| {
        let mut all: Vec<_> = keys.iter().map(|key| format!("{term}:{key}{}", term.len())).collect();
        all.sort();
        all
    };
    // Terms of one length share their objects, so that each of these objects has several values.
    assert_eq!(found(store, &between("t_bin", "", "zz")).await, terms.iter().flat_map(expected).collect::<Vec<_>>());
    let piece = between("t_bin", long("1"), long("2"));
    assert_eq!(found(store, &piece).await, terms[2..4].iter().flat_map(expected).collect::<Vec<_>>());
    assert_eq!(found(store, &between("t_bin", long("4"), long("5"))).await, Vec::<String>::new());
    assert_eq!(found(store, &between("n_int", "5", "5")).await.len(), keys.len() * 4);
}

async fn records_are_kept(store: &dyn Store) {
    let put = async |key: &str, value: Option<&str>| {
        durable(store, store.put_record(bytes(key), value.map(bytes))).await.unwrap();
    };
    put("b", Some("1")).await;
    put("a", Some("")).await;
    put("b", Some("2")).await;
    put("c", Some("3")).await;
    put("c", None).await;
    put("d", None).await;
    let mut records = store.records().await.unwrap();
    records.sort();
    assert_eq!(records, [("a", ""), ("b", "2")].map(|(key, value)| (bytes(key), bytes(value))));
}

async fn record_names_may_be_any_bytes(store: &dyn Store) {
    let mut expected: Vec<_> = [&b""[..], b"\0", b"\xff", b"store/actor", b"actor"].map(bytes).to_vec();
    expected.extend(long_names().iter().map(bytes));
    for name in &expected {
        durable(store, store.put_record(name.clone(), Some(name.clone()))).await.unwrap();
    }
    expected.sort();
    let mut records = store.records().await.unwrap();
    records.sort();
    assert_eq!(records, expected.iter().map(|name| (name.clone(), name.clone())).collect::<Vec<_>>());
}

async fn many_writes_may_wait_at_once(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let mut all_written: Vec<_> = (0..5_000)
        .map(|number| writer.send(&object(format!("{number:05}")), vec![], members(&Path::root(), 0..2)).1)
        .collect();
    all_written.push(store.put_record(bytes("r"), Some(bytes("v"))));
    all_written.push(store.raise_clock_bound(Time(5)));
    for written in all_written {
        durable(store, written).await.unwrap();
    }
    assert_eq!(keys(store, &bucket("b"), 1_000).await.len(), 5_000);
}

async fn a_closed_store_takes_no_writes(store: &dyn Store) {
    let mut writer = Writer::new(store);
    let name = object("k");
    let (_, queued) = writer.send(&name, vec![], members(&Path::root(), 0..2));
    store.close();
    assert_eq!(durable(store, queued).await, Ok(()));
    let all_written = [
        writer.send(&name, vec![], members(&Path::root(), 2..3)).1,
        store.put_record(bytes("r"), None),
        store.raise_clock_bound(Time(5)),
    ];
    for written in all_written {
        assert_eq!(durable(store, written).await, Err(StoreError::Closed));
    }
    assert_eq!(live(store, &name).await, members(&Path::root(), 0..2));
    store.close();
}
