use super::*;
use map_op::MapOp;

fn encoded_request(request: &Request) -> Vec<u8> {
    [&[request.code().number()][..], &request.encode()].concat()
}

fn encoded_reply(reply: &Reply) -> Vec<u8> {
    [&[reply.code().number()][..], &reply.encode()].concat()
}

/// Bytes written as hex digits, blanks allowed.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|char| char.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// Some of every request, with at least one field where there are fields.
fn requests() -> Vec<Request> {
    let bucket = || Some(Bytes::from("b"));
    let key = || Some(Bytes::from("k"));
    let props = || {
        Some(RpbBucketProps {
            n_val: Some(3),
            has_precommit: Some(true),
            repl: Some(rpb_bucket_props::RpbReplMode::True.into()),
            ..Default::default()
        })
    };
    vec![
        Request::Ping,
        Request::GetClientId,
        Request::SetClientId(RpbSetClientIdReq { client_id: Some(Bytes::new()) }),
        Request::GetServerInfo,
        Request::Get(RpbGetReq { bucket: bucket(), key: key(), r: Some(u32::MAX), ..Default::default() }),
        Request::Put(Box::new(RpbPutReq {
            bucket: bucket(),
            content: Some(RpbContent { value: Bytes::from("v"), ..Default::default() }),
            ..Default::default()
        })),
        Request::Delete(RpbDelReq { bucket: bucket(), ..Default::default() }),
        Request::ListBuckets(RpbListBucketsReq { stream: Some(true), ..Default::default() }),
        Request::ListKeys(RpbListKeysReq { bucket: bucket(), ..Default::default() }),
        Request::GetBucket(RpbGetBucketReq { bucket: bucket(), ..Default::default() }),
        Request::SetBucket(Box::new(RpbSetBucketReq { bucket: bucket(), props: props(), ..Default::default() })),
        Request::MapReduce(RpbMapRedReq { request: Some(Bytes::from("{}")), ..Default::default() }),
        Request::Index(Box::new(RpbIndexReq {
            bucket: bucket(),
            qtype: Some(rpb_index_req::IndexQueryType::Range.into()),
            ..Default::default()
        })),
        Request::ResetBucket(RpbResetBucketReq { bucket: bucket(), ..Default::default() }),
        Request::GetBucketType(RpbGetBucketTypeReq { r#type: bucket() }),
        Request::SetBucketType(Box::new(RpbSetBucketTypeReq { r#type: bucket(), props: props() })),
        Request::Preflist(RpbGetBucketKeyPreflistReq { bucket: bucket(), ..Default::default() }),
        Request::CsBucket(Box::new(RpbCsBucketReq { bucket: bucket(), ..Default::default() })),
        Request::CounterUpdate(RpbCounterUpdateReq { bucket: bucket(), amount: Some(i64::MIN), ..Default::default() }),
        Request::CounterGet(RpbCounterGetReq { bucket: bucket(), ..Default::default() }),
        Request::DtFetch(DtFetchReq { bucket: bucket(), ..Default::default() }),
        Request::DtUpdate(Box::new(DtUpdateReq {
            bucket: bucket(),
            op: Some(DtOp { map_op: Some(MapOp::released(&[MapField::default()], &[])), ..Default::default() }),
            ..Default::default()
        })),
        Request::StartTls,
    ]
}

/// One of every reply.
fn replies() -> Vec<Reply> {
    let object = RpbIndexObject { key: Bytes::from("k"), object: RpbGetResp::default() };
    vec![
        Reply::Error(RpbErrorResp { errmsg: Bytes::from("timeout"), errcode: 0 }),
        Reply::Ping,
        Reply::ClientId(RpbGetClientIdResp { client_id: Bytes::new() }),
        Reply::SetClientId,
        Reply::ServerInfo(RpbGetServerInfoResp { node: Some(Bytes::from("n")), ..Default::default() }),
        Reply::Get(RpbGetResp { content: vec![RpbContent::default()], ..Default::default() }),
        Reply::Put(RpbPutResp::default()),
        Reply::Delete,
        Reply::ListBuckets(RpbListBucketsResp { buckets: vec![Bytes::new()], ..Default::default() }),
        Reply::ListKeys(RpbListKeysResp { done: Some(true), ..Default::default() }),
        Reply::Bucket(Box::default()),
        Reply::SetBucket,
        Reply::MapReduce(RpbMapRedResp { phase: Some(0), ..Default::default() }),
        Reply::Index(RpbIndexResp { results: vec![RpbPair::default()], ..Default::default() }),
        Reply::ResetBucket,
        Reply::Preflist(RpbGetBucketKeyPreflistResp {
            preflist: vec![RpbBucketKeyPreflistItem { partition: -1, node: Bytes::from("n"), primary: false }],
        }),
        Reply::CsBucket(RpbCsBucketResp { objects: vec![object.clone()], ..Default::default() }),
        Reply::IndexBody(RpbIndexBodyResp { objects: vec![object], ..Default::default() }),
        Reply::CounterUpdate(RpbCounterUpdateResp { value: Some(5) }),
        Reply::CounterGet(RpbCounterGetResp { value: Some(-2) }),
        Reply::DtFetch(DtFetchResp { r#type: dt_fetch_resp::DataType::Gset.into(), ..Default::default() }),
        Reply::DtUpdate(DtUpdateResp { hll_value: Some(2), ..Default::default() }),
    ]
}

#[test]
fn requests_round_trip() {
    for request in requests() {
        let number = request.code().number();
        assert_eq!(Request::decode(number, request.encode()), Ok(request));
    }
}

#[test]
fn replies_round_trip() {
    for reply in replies() {
        let number = reply.code().number();
        assert_eq!(Reply::decode(number, reply.encode()), Ok(reply));
    }
}

#[test]
fn every_code_is_answered_as_the_table_says() {
    let payload = Bytes::from_static(b"\x0a\x01b");
    let requests: Vec<Code> = requests().iter().map(Request::code).collect();
    for number in 0..=u8::MAX {
        let code = Code::from_number(number).filter(|code| code.is_served());
        match (code, Request::decode(number, payload.clone())) {
            (None, Err(MessageError::UnknownCode { code })) => assert_eq!(code, number),
            (Some(code), Err(MessageError::NotARequest { code: found })) => {
                assert_eq!(code.direction(), Direction::Reply);
                assert_eq!(found, number);
            }
            // Some messages have no text at 1, where the payload has it.
            (Some(code), Ok(_) | Err(MessageError::Malformed { .. })) => {
                assert_ne!(code.direction(), Direction::Reply);
                assert!(requests.contains(&code), "{}", code.name());
            }
            (code, result) => panic!("code {number}, {code:?}: {result:?}"),
        }
    }
}

#[test]
fn codes_with_a_meaning_elsewhere_are_unknown_here() {
    // Errors, index bodies, search, coverage, authentication without security, replication.
    for number in [0, 27, 42, 54, 70, 71, 90, 104, 128, 200, 253, 254] {
        for payload in [&b""[..], b"\x0a\x20ab"] {
            assert_eq!(
                Request::decode(number, Bytes::from_static(payload)),
                Err(MessageError::UnknownCode { code: number })
            );
        }
    }
}

#[test]
fn replies_are_no_requests_and_requests_no_replies() {
    for reply in replies() {
        let number = reply.code().number();
        assert!(Request::decode(number, reply.encode()).is_err());
    }
    for request in requests() {
        let number = request.code().number();
        let unknown = Err(MessageError::UnknownCode { code: number });
        assert_eq!(Reply::decode(number, request.encode()), unknown);
    }
}

#[test]
fn an_empty_payload_is_malformed_where_fields_are_required() {
    for request in requests() {
        let code = request.code().number();
        let without_fields = request.encode().is_empty();
        let result = Request::decode(code, Bytes::new());
        if without_fields {
            assert_eq!(result, Ok(request));
        } else if code == 15 {
            let everything = Request::ListBuckets(RpbListBucketsReq::default());
            assert_eq!(result, Ok(everything));
        } else {
            let reason = MalformedReason::Empty;
            assert_eq!(result, Err(MessageError::Malformed { code, reason }));
        }
    }
}

#[test]
fn a_payload_that_is_not_expected_is_ignored() {
    for code in [1, 3, 7, 255] {
        let result = Request::decode(code, Bytes::from_static(b"\x0a\x20ab"));
        assert!(result.is_ok(), "code {code}");
    }
}

#[test]
fn broken_payloads_are_malformed() {
    let broken = ["0aff", "0a7f616263", "0f01", "68656c6c6f", "ffffffffffffffffffffffff", "0a206162"];
    for request in requests().iter().filter(|request| !request.encode().is_empty()) {
        let code = request.code().number();
        for text in broken {
            let result = Request::decode(code, hex(text).into());
            assert!(
                matches!(result, Err(MessageError::Malformed { code: found, .. }) if found == code),
                "code {code}, {text}: {result:?}"
            );
        }
    }
}

#[test]
fn cut_payloads_never_panic() {
    for request in requests() {
        let whole = request.encode();
        for cut in 0..whole.len() {
            let _: Result<_, _> = Request::decode(request.code().number(), whole.slice(..cut));
        }
    }
    for reply in replies() {
        let whole = reply.encode();
        for cut in 0..whole.len() {
            let _: Result<_, _> = Reply::decode(reply.code().number(), whole.slice(..cut));
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(code: u8, payload: Vec<u8>) {
        let payload = Bytes::from(payload);
        let _: Result<_, _> = Request::decode(code, payload.clone());
        let _: Result<_, _> = Reply::decode(code, payload);
    }
}

fn decode_get(text: &str) -> Result<RpbGetReq, MessageError> {
    match Request::decode(9, hex(text).into())? {
        Request::Get(message) => Ok(message),
        other => panic!("{other:?}"),
    }
}

/// What Riak's decoder forgives is forgiven here too.
#[test]
fn leniency_of_riaks_decoder() {
    let expected = RpbGetReq {
        bucket: Some(Bytes::from("b")),
        key: Some(Bytes::from("k")),
        r: Some(1),
        head: Some(true),
        ..Default::default()
    };
    for text in [
        "0a0162 12016b 1801 4001",
        // Fields in another order.
        "4001 1801 12016b 0a0162",
        // A bool of 2, and one wider than 32 bits.
        "0a0162 12016b 1801 4002",
        "0a0162 12016b 1801 40 808080808001",
        // A varint with needless bytes; a uint32 wider than 32 bits.
        "0a0162 12016b 18818000 4001",
        "0a0162 12016b 18 8180808010 4001",
        // The last one of a field counts.
        "0a0178 0a0162 12016b 1809 1801 4000 4001",
        // Unknown fields: bytes, varint, 4 and 8 bytes, a group.
        "0a0162 12016b 1801 4001 fa0703616263 f80701 fd0701020304 f9070102030405060708 fb07fc07",
    ] {
        assert_eq!(decode_get(text), Ok(expected.clone()), "{text}");
    }
}

/// Riak skips such a field as an unknown one.
#[test]
fn a_known_field_with_a_wrong_wire_type_is_malformed() {
    assert!(decode_get("0a0162 12016b 1a0101").is_err());
    assert!(decode_get("0801 12016b").is_err());
}

#[test]
fn a_missing_required_field_is_seen() {
    assert_eq!(decode_get("12016b").expect("decodes").bucket, None);
    let empty = decode_get("0a00 12016b").expect("decodes").bucket;
    assert_eq!(empty, Some(Bytes::new()));
}

#[test]
fn bytes_fields_are_slices_of_the_payload() {
    let payload: Bytes = hex("0a0162 12016b 2203 0a0176").into();
    let inside = payload.as_ptr_range();
    let Ok(Request::Put(put)) = Request::decode(11, payload) else {
        panic!("a put");
    };
    assert!(inside.contains(&put.content.expect("content").value.as_ptr()));
    assert!(inside.contains(&put.bucket.expect("bucket").as_ptr()));
}

#[test]
fn golden_requests() {
    let dt_update = |r#type: &str, op: DtOp| DtUpdateReq {
        bucket: Some(Bytes::from("b")),
        key: Some(Bytes::from("k")),
        r#type: Some(Bytes::copy_from_slice(r#type.as_bytes())),
        op: Some(op),
        ..Default::default()
    };
    let dt_fetch = DtFetchReq {
        bucket: Some(Bytes::from("b")),
        key: Some(Bytes::from("k")),
        r#type: Some(Bytes::from("sets")),
        ..Default::default()
    };
    let remove = MapField { name: Some(Bytes::from("f")), r#type: Some(map_field::MapFieldType::Set.into()) };
    let enable = MapUpdate {
        field: Some(MapField { name: Some(Bytes::from("f")), r#type: Some(map_field::MapFieldType::Flag.into()) }),
        flag_op: Some(map_update::FlagOp::Enable.into()),
        ..Default::default()
    };
    for (request, text) in [
        (Request::Ping, "01"),
        (Request::DtFetch(dt_fetch.clone()), "50 0a0162 12016b 1a0473657473"),
        (
            Request::DtFetch(DtFetchReq { include_context: Some(false), ..dt_fetch }),
            "50 0a0162 12016b 1a0473657473 5800",
        ),
        (
            Request::DtUpdate(Box::new(DtUpdateReq {
                return_body: Some(true),
                ..dt_update(
                    "sets",
                    DtOp {
                        set_op: Some(SetOp { adds: vec![Bytes::from("x")], removes: vec![Bytes::from("y")] }),
                        ..Default::default()
                    },
                )
            })),
            "52 0a0162 12016b 1a0473657473 2a08 1206 0a0178 120179 4801",
        ),
        (
            Request::DtUpdate(Box::new(dt_update(
                "counters",
                DtOp { counter_op: Some(CounterOp { increment: Some(-5) }), ..Default::default() },
            ))),
            "52 0a0162 12016b 1a08636f756e74657273 2a04 0a02 0809",
        ),
        (
            Request::DtUpdate(Box::new(dt_update(
                "counters",
                DtOp { counter_op: Some(CounterOp { increment: None }), ..Default::default() },
            ))),
            "52 0a0162 12016b 1a08636f756e74657273 2a02 0a00",
        ),
        (
            Request::DtUpdate(Box::new(dt_update(
                "maps",
                DtOp { map_op: Some(MapOp::released(&[remove], &[enable])), ..Default::default() },
            ))),
            "52 0a0162 12016b 1a046d617073 2a14 1a12 0a05 0a0166 1002 1209 0a05 0a0166 1004 2801",
        ),
    ] {
        assert_eq!(encoded_request(&request), hex(text), "{request:?}");
        let payload = Bytes::from(hex(text)).slice(1..);
        assert_eq!(Request::decode(request.code().number(), payload), Ok(request));
    }
}

#[test]
fn golden_replies() {
    use dt_fetch_resp::DataType;
    let fetched = |r#type: DataType, value: Option<DtValue>| {
        Reply::DtFetch(DtFetchResp { r#type: r#type.into(), value, ..Default::default() })
    };
    let error = Reply::Error(RpbErrorResp { errmsg: Bytes::from("Unknown message code: 99"), errcode: 0 });
    for (reply, text) in [
        (error, "00 0a18 556e6b6e6f776e206d65737361676520636f64653a203939 1000"),
        (Reply::Get(RpbGetResp::default()), "0a"),
        // A value is written even when it is empty, as for tombstones and heads.
        (Reply::Get(RpbGetResp { content: vec![RpbContent::default()], ..Default::default() }), "0a 0a02 0a00"),
        (Reply::Put(RpbPutResp::default()), "0c"),
        (fetched(DataType::Counter, None), "51 1001"),
        (fetched(DataType::Gset, None), "51 1005"),
        (
            fetched(DataType::Counter, Some(DtValue { counter_value: Some(0), ..Default::default() })),
            "51 1001 1a02 0800",
        ),
        (fetched(DataType::Hll, Some(DtValue { hll_value: Some(2), ..Default::default() })), "51 1004 1a02 2002"),
        (fetched(DataType::Set, Some(DtValue::default())), "51 1002 1a00"),
        (
            fetched(DataType::Set, Some(DtValue { set_value: vec!["x".into(), "y".into()], ..Default::default() })),
            "51 1002 1a06 120178 120179",
        ),
        (
            fetched(DataType::Gset, Some(DtValue { gset_value: vec!["a".into()], ..Default::default() })),
            "51 1005 1a03 2a0161",
        ),
        (Reply::DtUpdate(DtUpdateResp::default()), "53"),
        (Reply::DtUpdate(DtUpdateResp { counter_value: Some(-4), ..Default::default() }), "53 1807"),
        (Reply::CounterGet(RpbCounterGetResp { value: Some(-2) }), "35 0803"),
        (Reply::CounterUpdate(RpbCounterUpdateResp { value: Some(5) }), "33 080a"),
    ] {
        assert_eq!(encoded_reply(&reply), hex(text), "{reply:?}");
    }
}

#[test]
fn golden_map_value() {
    use map_field::MapFieldType;
    let entry = |name: &'static str, kind: MapFieldType| MapEntry {
        field: MapField { name: Some(Bytes::from(name)), r#type: Some(kind.into()) },
        ..Default::default()
    };
    let entries = [
        MapEntry { counter_value: Some(1), ..entry("f", MapFieldType::Counter) },
        MapEntry { register_value: Some(Bytes::from("v")), ..entry("f", MapFieldType::Register) },
        MapEntry {
            map_value: vec![MapEntry { register_value: Some(Bytes::from("w")), ..entry("in", MapFieldType::Register) }],
            ..entry("f", MapFieldType::Map)
        },
        MapEntry { flag_value: Some(true), ..entry("f", MapFieldType::Flag) },
        MapEntry { set_value: vec![Bytes::from("a"), Bytes::from("z")], ..entry("f", MapFieldType::Set) },
        entry("es", MapFieldType::Set),
    ];
    let expected = [
        "0a05 0a0166 1001 1002",
        "0a05 0a0166 1003 220176",
        "0a05 0a0166 1005 320b 0a06 0a02 696e 1003 220177",
        "0a05 0a0166 1004 2801",
        "0a05 0a0166 1002 1a0161 1a017a",
        "0a06 0a02 6573 1002",
    ];
    for (entry, text) in entries.iter().zip(expected) {
        assert_eq!(entry.encode_to_vec(), hex(text));
    }
}

/// A fetched map of this depth: 1 is a map without maps inside it.
fn map_of_depth(depth: usize) -> Reply {
    let innermost = MapEntry::default();
    let outermost = (1..depth).fold(innermost, |inner, _| MapEntry { map_value: vec![inner], ..Default::default() });
    Reply::DtFetch(DtFetchResp {
        value: Some(DtValue { map_value: vec![outermost], ..Default::default() }),
        ..Default::default()
    })
}

/// Messages may be nested 100 deep for prost and for other readers of protocol buffers. The fetched value and the
/// name of the innermost field count too.
#[test]
fn maps_nested_too_deep_are_encoded_but_not_decoded() {
    for (depth, decodes) in [(97, true), (98, true), (99, false), (150, false)] {
        let reply = map_of_depth(depth);
        let result = Reply::decode(reply.code().number(), reply.encode());
        assert_eq!(result.is_ok(), decodes, "depth {depth}");
    }
}
