//! The one table of message codes: number, name, direction, family, and whether a service claims it.

/// Which way a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From client to server.
    Request,
    /// From server to client.
    Reply,
    /// Both ways, or never alone: a part of other messages that was given a code nevertheless.
    Either,
}

/// The protocol file a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Errors, ping, bucket properties, authentication.
    Riak,
    /// Objects, listings, map-reduce, index queries; also replication and tree exchange.
    Kv,
    /// Data types.
    Dt,
    /// Full-text queries.
    Search,
    /// Administration of full-text indexes.
    Yokozuna,
    /// Time series.
    Ts,
    /// Replication of former releases.
    Repl,
}

impl Family {
    /// The name of the protocol file, without its ending.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Riak => "riak",
            Family::Kv => "riak_kv",
            Family::Dt => "riak_dt",
            Family::Search => "riak_search",
            Family::Yokozuna => "riak_yokozuna",
            Family::Ts => "riak_ts",
            Family::Repl => "riak_repl",
        }
    }
}

macro_rules! codes {
    ($($number:literal $name:ident $direction:ident $family:ident $service:ident,)+) => {
        /// A message code with Riak's name for it. The variants carry their number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Code {
            $(
                #[doc = concat!("Code ", stringify!($number), ".")]
                $name = $number,
            )+
        }

        impl Code {
            /// Every code, in ascending order.
            pub const ALL: &'static [Code] = &[$(Code::$name),+];

            /// The code of this number, unless Riak gave it no meaning.
            pub const fn from_number(number: u8) -> Option<Code> {
                match number {
                    $($number => Some(Code::$name),)+
                    _ => None,
                }
            }

            /// Riak's name of the message, for logs, spans and metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Code::$name => stringify!($name),)+
                }
            }

            /// Which way the message travels.
            pub const fn direction(self) -> Direction {
                match self {
                    $(Code::$name => Direction::$direction,)+
                }
            }

            /// The protocol file the message belongs to.
            pub const fn family(self) -> Family {
                match self {
                    $(Code::$name => Family::$family,)+
                }
            }

            /// Whether a service claims the code. A claimed request is decoded and answered; a claimed reply sent as
            /// a request ends the connection; every other code is answered as unknown. The replies 0 and 42 are sent
            /// although no service claims them, and 253 and 254 have a meaning only while a connection waits for
            /// authentication.
            pub const fn is_served(self) -> bool {
                match self {
                    $(Code::$name => codes!(@$service),)+
                }
            }
        }
    };
    (@served) => { true };
    (@unserved) => { false };
}

codes! {
      0 RpbErrorResp Reply Riak unserved,
      1 RpbPingReq Request Riak served,
      2 RpbPingResp Reply Riak served,
      3 RpbGetClientIdReq Request Kv served,
      4 RpbGetClientIdResp Reply Kv served,
      5 RpbSetClientIdReq Request Kv served,
      6 RpbSetClientIdResp Reply Kv served,
      7 RpbGetServerInfoReq Request Riak served,
      8 RpbGetServerInfoResp Reply Riak served,
      9 RpbGetReq Request Kv served,
     10 RpbGetResp Reply Kv served,
     11 RpbPutReq Request Kv served,
     12 RpbPutResp Reply Kv served,
     13 RpbDelReq Request Kv served,
     14 RpbDelResp Reply Kv served,
     15 RpbListBucketsReq Request Kv served,
     16 RpbListBucketsResp Reply Kv served,
     17 RpbListKeysReq Request Kv served,
     18 RpbListKeysResp Reply Kv served,
     19 RpbGetBucketReq Request Riak served,
     20 RpbGetBucketResp Reply Riak served,
     21 RpbSetBucketReq Request Riak served,
     22 RpbSetBucketResp Reply Riak served,
     23 RpbMapRedReq Request Kv served,
     24 RpbMapRedResp Reply Kv served,
     25 RpbIndexReq Request Kv served,
     26 RpbIndexResp Reply Kv served,
     27 RpbSearchQueryReq Request Search unserved,
     28 RpbSearchQueryResp Reply Search unserved,
     29 RpbResetBucketReq Request Riak served,
     30 RpbResetBucketResp Reply Riak served,
     31 RpbGetBucketTypeReq Request Riak served,
     32 RpbSetBucketTypeReq Request Riak served,
     33 RpbGetBucketKeyPreflistReq Request Kv served,
     34 RpbGetBucketKeyPreflistResp Reply Kv served,
     40 RpbCSBucketReq Request Kv served,
     41 RpbCSBucketResp Reply Kv served,
     42 RpbIndexBodyResp Reply Kv unserved,
     50 RpbCounterUpdateReq Request Kv served,
     51 RpbCounterUpdateResp Reply Kv served,
     52 RpbCounterGetReq Request Kv served,
     53 RpbCounterGetResp Reply Kv served,
     54 RpbYokozunaIndexGetReq Request Yokozuna unserved,
     55 RpbYokozunaIndexGetResp Reply Yokozuna unserved,
     56 RpbYokozunaIndexPutReq Request Yokozuna unserved,
     57 RpbYokozunaIndexDeleteReq Request Yokozuna unserved,
     58 RpbYokozunaSchemaGetReq Request Yokozuna unserved,
     59 RpbYokozunaSchemaGetResp Reply Yokozuna unserved,
     60 RpbYokozunaSchemaPutReq Request Yokozuna unserved,
     70 RpbCoverageReq Request Kv unserved,
     71 RpbCoverageResp Reply Kv unserved,
     80 DtFetchReq Request Dt served,
     81 DtFetchResp Reply Dt served,
     82 DtUpdateReq Request Dt served,
     83 DtUpdateResp Reply Dt served,
     90 TsQueryReq Request Ts unserved,
     91 TsQueryResp Reply Ts unserved,
     92 TsPutReq Request Ts unserved,
     93 TsPutResp Reply Ts unserved,
     94 TsDelReq Request Ts unserved,
     95 TsDelResp Reply Ts unserved,
     96 TsGetReq Request Ts unserved,
     97 TsGetResp Reply Ts unserved,
     98 TsListKeysReq Request Ts unserved,
     99 TsListKeysResp Reply Ts unserved,
    100 TsCoverageReq Request Ts unserved,
    101 TsCoverageResp Reply Ts unserved,
    102 TsCoverageEntry Either Ts unserved,
    103 TsRange Either Ts unserved,
    104 TsTtbMsg Either Ts unserved,
    128 RpbReplGetReq Request Repl unserved,
    129 RpbReplGetClusterIdReq Request Repl unserved,
    130 RpbReplGetClusterIdResp Reply Repl unserved,
    200 RpbRTEReq Request Kv unserved,
    201 RpbRTEResp Reply Kv unserved,
    202 RpbFetchReq Request Kv unserved,
    203 RpbFetchResp Reply Kv unserved,
    204 RpbPushReq Request Kv unserved,
    205 RpbPushResp Reply Kv unserved,
    206 RpbMembershipReq Request Kv unserved,
    207 RpbMembershipResp Reply Kv unserved,
    210 RpbAaeFoldMergeRootNValReq Request Kv unserved,
    211 RpbAaeFoldMergeBranchNValReq Request Kv unserved,
    212 RpbAaeFoldFetchClocksNValReq Request Kv unserved,
    213 RpbAaeFoldMergeTreesRangeReq Request Kv unserved,
    214 RpbAaeFoldFetchClocksRangeReq Request Kv unserved,
    215 RpbAaeFoldFindKeysReq Request Kv unserved,
    216 RpbAaeFoldObjectStatsReq Request Kv unserved,
    217 RpbAaeFoldReplKeysReq Request Kv unserved,
    218 RpbAaeFoldFindTombsReq Request Kv unserved,
    219 RpbAaeFoldRepairKeysReq Request Kv unserved,
    220 RpbAaeFoldTreeResp Reply Kv unserved,
    221 RpbAaeFoldKeyValueResp Reply Kv unserved,
    222 RpbAaeFoldKeyCountResp Reply Kv unserved,
    223 RpbAaeFoldListBucketsReq Request Kv unserved,
    224 RpbAaeFoldListBucketsResp Reply Kv unserved,
    230 RpbAaeFoldReapTombsReq Request Kv unserved,
    231 RpbAaeFoldEraseKeysReq Request Kv unserved,
    253 RpbAuthReq Request Riak unserved,
    254 RpbAuthResp Reply Riak unserved,
    255 RpbStartTls Either Riak served,
}

impl Code {
    /// The number that travels.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Riak's own list: code, message, protocol file.
    const LIST: &str = "
        0 RpbErrorResp riak
        1 RpbPingReq riak
        2 RpbPingResp riak
        3 RpbGetClientIdReq riak_kv
        4 RpbGetClientIdResp riak_kv
        5 RpbSetClientIdReq riak_kv
        6 RpbSetClientIdResp riak_kv
        7 RpbGetServerInfoReq riak
        8 RpbGetServerInfoResp riak
        9 RpbGetReq riak_kv
        10 RpbGetResp riak_kv
        11 RpbPutReq riak_kv
        12 RpbPutResp riak_kv
        13 RpbDelReq riak_kv
        14 RpbDelResp riak_kv
        15 RpbListBucketsReq riak_kv
        16 RpbListBucketsResp riak_kv
        17 RpbListKeysReq riak_kv
        18 RpbListKeysResp riak_kv
        19 RpbGetBucketReq riak
        20 RpbGetBucketResp riak
        21 RpbSetBucketReq riak
        22 RpbSetBucketResp riak
        23 RpbMapRedReq riak_kv
        24 RpbMapRedResp riak_kv
        25 RpbIndexReq riak_kv
        26 RpbIndexResp riak_kv
        27 RpbSearchQueryReq riak_search
        28 RpbSearchQueryResp riak_search
        29 RpbResetBucketReq riak
        30 RpbResetBucketResp riak
        31 RpbGetBucketTypeReq riak
        32 RpbSetBucketTypeReq riak
        33 RpbGetBucketKeyPreflistReq riak_kv
        34 RpbGetBucketKeyPreflistResp riak_kv
        40 RpbCSBucketReq riak_kv
        41 RpbCSBucketResp riak_kv
        42 RpbIndexBodyResp riak_kv
        50 RpbCounterUpdateReq riak_kv
        51 RpbCounterUpdateResp riak_kv
        52 RpbCounterGetReq riak_kv
        53 RpbCounterGetResp riak_kv
        54 RpbYokozunaIndexGetReq riak_yokozuna
        55 RpbYokozunaIndexGetResp riak_yokozuna
        56 RpbYokozunaIndexPutReq riak_yokozuna
        57 RpbYokozunaIndexDeleteReq riak_yokozuna
        58 RpbYokozunaSchemaGetReq riak_yokozuna
        59 RpbYokozunaSchemaGetResp riak_yokozuna
        60 RpbYokozunaSchemaPutReq riak_yokozuna
        70 RpbCoverageReq riak_kv
        71 RpbCoverageResp riak_kv
        80 DtFetchReq riak_dt
        81 DtFetchResp riak_dt
        82 DtUpdateReq riak_dt
        83 DtUpdateResp riak_dt
        90 TsQueryReq riak_ts
        91 TsQueryResp riak_ts
        92 TsPutReq riak_ts
        93 TsPutResp riak_ts
        94 TsDelReq riak_ts
        95 TsDelResp riak_ts
        96 TsGetReq riak_ts
        97 TsGetResp riak_ts
        98 TsListKeysReq riak_ts
        99 TsListKeysResp riak_ts
        100 TsCoverageReq riak_ts
        101 TsCoverageResp riak_ts
        102 TsCoverageEntry riak_ts
        103 TsRange riak_ts
        104 TsTtbMsg riak_ts
        128 RpbReplGetReq riak_repl
        129 RpbReplGetClusterIdReq riak_repl
        130 RpbReplGetClusterIdResp riak_repl
        200 RpbRTEReq riak_kv
        201 RpbRTEResp riak_kv
        202 RpbFetchReq riak_kv
        203 RpbFetchResp riak_kv
        204 RpbPushReq riak_kv
        205 RpbPushResp riak_kv
        206 RpbMembershipReq riak_kv
        207 RpbMembershipResp riak_kv
        210 RpbAaeFoldMergeRootNValReq riak_kv
        211 RpbAaeFoldMergeBranchNValReq riak_kv
        212 RpbAaeFoldFetchClocksNValReq riak_kv
        213 RpbAaeFoldMergeTreesRangeReq riak_kv
        214 RpbAaeFoldFetchClocksRangeReq riak_kv
        215 RpbAaeFoldFindKeysReq riak_kv
        216 RpbAaeFoldObjectStatsReq riak_kv
        217 RpbAaeFoldReplKeysReq riak_kv
        218 RpbAaeFoldFindTombsReq riak_kv
        219 RpbAaeFoldRepairKeysReq riak_kv
        220 RpbAaeFoldTreeResp riak_kv
        221 RpbAaeFoldKeyValueResp riak_kv
        222 RpbAaeFoldKeyCountResp riak_kv
        223 RpbAaeFoldListBucketsReq riak_kv
        224 RpbAaeFoldListBucketsResp riak_kv
        230 RpbAaeFoldReapTombsReq riak_kv
        231 RpbAaeFoldEraseKeysReq riak_kv
        253 RpbAuthReq riak
        254 RpbAuthResp riak
        255 RpbStartTls riak
    ";

    /// The requests a Riak node without security serves, as recorded.
    const SERVED_REQUESTS: [u8; 23] =
        [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 29, 31, 32, 33, 40, 50, 52, 80, 82, 255];

    /// The replies that end a connection when they are sent as requests, as recorded.
    const SERVED_REPLIES: [u8; 20] = [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 30, 34, 41, 51, 53, 81, 83];

    #[test]
    fn the_table_is_riaks_list() {
        let mut expected = [None; 256];
        for line in LIST.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.split_whitespace();
            let number: usize = words.next().expect("a code").parse().expect("a number");
            expected[number] = Some((words.next().expect("a name"), words.next().expect("a file")));
        }
        for number in 0..=u8::MAX {
            let code = Code::from_number(number);
            let found = code.map(|code| (code.name(), code.family().name()));
            assert_eq!(found, expected[usize::from(number)], "code {number}");
            assert!(code.is_none_or(|code| code.number() == number));
        }
        assert_eq!(Code::ALL.len(), expected.iter().flatten().count());
        assert!(Code::ALL.is_sorted_by_key(|code| code.number()));
    }

    #[test]
    fn directions_follow_the_names() {
        for code in Code::ALL {
            let expected = match code.name() {
                name if name.ends_with("Req") => Direction::Request,
                name if name.ends_with("Resp") => Direction::Reply,
                _ => Direction::Either,
            };
            assert_eq!(code.direction(), expected, "{}", code.name());
        }
    }

    #[test]
    fn served_codes_are_those_recorded() {
        for code in Code::ALL {
            let number = code.number();
            let expected = SERVED_REQUESTS.contains(&number) || SERVED_REPLIES.contains(&number);
            assert_eq!(code.is_served(), expected, "{}", code.name());
        }
    }
}
