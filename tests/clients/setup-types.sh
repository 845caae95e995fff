#!/bin/sh
# setup-types.sh OMBAK DATA_DIR : creates and activates, on the server that runs on DATA_DIR, every bucket type that the
# client suites use. OMBAK is the program. Types that the server made by itself (counters, sets, ...) are left as they are.
set -eu
[ $# -eq 2 ] || { sed -n 2,3p "$0"; exit 2; }
ombak=$1 data_dir=$2
bucket_type() { "$ombak" --data-dir "$data_dir" bucket-type "$@"; }
existing=$(bucket_type list)

type() { # name [properties]
    case "$existing" in *"$1 (active)"*) return 0 ;; esac
    bucket_type create "$1" "{\"props\":{${2:-}}}" >/dev/null
    bucket_type activate "$1" >/dev/null
}
type plain
type no_siblings '"allow_mult":false'
type write_once '"write_once":true'
type mr
type counters '"datatype":"counter"'
type sets '"datatype":"set"'
type gsets '"datatype":"gset"'
type gset_bucket '"datatype":"gset"'
type maps '"datatype":"map"'
type hlls '"datatype":"hll","hll_precision":14'
type other_counters '"datatype":"counter"'
type yokozuna
type search_type
type no_riak_test_bucket_type '"r":1,"allow_mult":true'
type no_riak_test_crdt_counter '"datatype":"counter"'
type no_riak_test_crdt_map '"datatype":"map"'
type no_riak_test_crdt_set '"datatype":"set"'
type _test_crdt_counter '"datatype":"counter"'
type _test_crdt_map '"datatype":"map"'
type _test_crdt_set '"datatype":"set"'
# Those of the transcripts.
type mult '"allow_mult":true'
type lww '"last_write_wins":true,"allow_mult":false,"dvv_enabled":false'
type wo '"write_once":true'
