"""Every row of the map's operations and errors, asked by grpcio. run.sh starts the server and makes the stubs.

Each check has keys of its own, so that their order does not matter.
"""
import sys
import threading

import grpc
from atomix.cluster import cluster_pb2, cluster_pb2_grpc
from atomix.partition import partition_pb2, partition_pb2_grpc
from atomix.pb.headers import headers_pb2
from atomix.pb.map import map_pb2, map_pb2_grpc

PARTITIONS = 8
channel = grpc.insecure_channel(sys.argv[1])
maps = map_pb2_grpc.MapServiceStub(channel)
checks = []


def check(function):
    checks.append(function)
    return function


def home(key):
    number = 0x811C9DC5
    for byte in key.encode():
        number = (number ^ byte) * 0x01000193 % 2**32
    return number % PARTITIONS + 1


def header(key=None, partition=None, namespace="app", name="acceptance", protocol=("default", "test")):
    header = headers_pb2.RequestHeader(partition=home(key) if partition is None else partition)
    header.protocol.namespace, header.protocol.name = protocol
    header.primitive.namespace, header.primitive.name = namespace, name
    return header


def put(key, value=b"", version=0, **where):
    request = map_pb2.PutRequest(header=header(key, **where), key=key, value=map_pb2.Value(value=value, version=version))
    return expect_ok(maps.Put(request, timeout=20)).version


def get(key, **where):
    response = expect_ok(maps.Get(map_pb2.GetRequest(header=header(key, **where), key=key), timeout=20))
    return (response.value.value, response.value.version) if response.HasField("value") else None


def remove(key, version=0, **where):
    # Its bytes are ignored.
    value = map_pb2.Value(value=b"ignored", version=version)
    response = expect_ok(maps.Remove(map_pb2.RemoveRequest(header=header(key, **where), key=key, value=value), timeout=20))
    return (response.value.value, response.value.version) if response.HasField("value") else None


def expect_ok(response):
    assert response.HasField("header")
    assert response.header.type == headers_pb2.RESPONSE and response.header.status == headers_pb2.OK
    return response


def expect(code, text, function, *arguments, **keywords):
    try:
        answer = function(*arguments, **keywords)
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        assert text is None or error.details() == text, error.details()
        return
    raise AssertionError("answered %r" % (answer,))


LOCK = (grpc.StatusCode.PERMISSION_DENIED, "optimistic lock failure")
NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "map not found")


@check
def put_without_a_condition_stores_and_answers_the_version():
    first = put("put", b"a")
    assert get("put") == (b"a", first)
    second = put("put", b"b")
    assert second > first and get("put") == (b"b", second)


@check
def put_with_the_version_that_is_there():
    first = put("cas", b"a")
    second = put("cas", b"b", version=first)
    assert second > first and get("cas") == (b"b", second)


@check
def put_with_another_version():
    first = put("cas-wrong", b"a")
    for version in (first + 1, first + 1000):
        expect(*LOCK, put, "cas-wrong", b"b", version=version)
    second = put("cas-wrong", b"c")
    expect(*LOCK, put, "cas-wrong", b"b", version=first)
    assert get("cas-wrong") == (b"c", second)


@check
def put_with_a_version_where_there_is_no_key():
    expect(*LOCK, put, "cas-absent", b"a", version=1)
    assert get("cas-absent") is None
    version = put("cas-removed", b"a")
    remove("cas-removed")
    expect(*LOCK, put, "cas-removed", b"b", version=version)


@check
def get_of_a_missing_key_has_no_value():
    assert get("never-written") is None


@check
def an_empty_value_is_not_a_missing_one():
    version = put("empty", b"")
    assert get("empty") == (b"", version)


@check
def a_put_without_a_value_stores_an_empty_one():
    response = maps.Put(map_pb2.PutRequest(header=header("no-value"), key="no-value"))
    assert get("no-value") == (b"", response.version)


@check
def remove_answers_the_old_value_and_version():
    version = put("remove", b"old")
    assert remove("remove") == (b"old", version)
    assert get("remove") is None


@check
def remove_of_a_missing_key_answers_nothing_and_uses_no_number_up():
    before = put("counted", b"")
    # A key of the same partition.
    absent = next(key for key in ("absent-%d" % n for n in range(1000)) if home(key) == home("counted"))
    assert remove(absent) is None
    assert put("counted", b"") == before + 1


@check
def remove_uses_a_number_up():
    before = put("counted-remove", b"")
    remove("counted-remove")
    assert put("counted-remove", b"") == before + 2


@check
def remove_with_a_version():
    version = put("remove-cas", b"v")
    expect(*LOCK, remove, "remove-cas", version=version + 1)
    expect(*LOCK, remove, "remove-cas-absent", version=1)
    assert remove("remove-cas", version=version) == (b"v", version)
    expect(*LOCK, remove, "remove-cas", version=version)


@check
def versions_are_the_partitions_count_and_shared_by_its_maps():
    one = put("shared", b"", name="one")
    other = put("shared", b"", name="other")
    assert other == one + 1
    assert get("shared", name="one") == (b"", one)


@check
def maps_are_told_apart_by_all_four_names():
    places = [
        {"namespace": "a.b", "name": "c"},
        {"namespace": "a", "name": "b.c"},
        {"namespace": "c", "name": "a.b"},
        {"namespace": "a.b", "name": "c", "protocol": ("test", "default")},
        {"namespace": "a.b", "name": "c", "protocol": ("", "")},
    ]
    for number, place in enumerate(places):
        put("told-apart", b"%d" % number, **place)
    for number, place in enumerate(places):
        assert get("told-apart", **place)[0] == b"%d" % number


@check
def a_map_that_was_never_written_is_there_and_empty():
    assert get("k", namespace="nobody", name="wrote this") is None
    assert remove("k", namespace="nobody", name="wrote this") is None


@check
def a_partition_that_is_none():
    for partition in (0, PARTITIONS + 1, 2**32 - 1):
        expect(*NOT_FOUND, put, "k", partition=partition)
        expect(*NOT_FOUND, get, "k", partition=partition)
        expect(*NOT_FOUND, remove, "k", partition=partition)


@check
def a_key_of_another_partition():
    elsewhere = home("k") % PARTITIONS + 1
    for function in (put, get, remove):
        expect(grpc.StatusCode.INVALID_ARGUMENT, "the key belongs to partition %d" % home("k"), function, "k", partition=elsewhere)


@check
def a_missing_header_is_an_empty_one():
    expect(*NOT_FOUND, maps.Get, map_pb2.GetRequest(key="k"))
    expect(*NOT_FOUND, maps.Put, map_pb2.PutRequest())


@check
def what_is_too_large():
    expect(grpc.StatusCode.INVALID_ARGUMENT, None, put, "k" * 65_537)
    expect(grpc.StatusCode.INVALID_ARGUMENT, None, put, "large", b"x" * (3 * 2**20 + 1))
    expect(grpc.StatusCode.RESOURCE_EXHAUSTED, None, put, "large", b"x" * (5 * 2**20))
    expect(grpc.StatusCode.INVALID_ARGUMENT, None, put, "k", name="n" * 4097)
    assert get("large") is None
    assert put("large", b"x" * 3 * 2**20) and len(get("large")[0]) == 3 * 2**20


@check
def an_rpc_that_is_none():
    call = channel.unary_unary("/atomix.pb.map.MapService/Clear")
    expect(grpc.StatusCode.UNIMPLEMENTED, None, call, b"")


@check
def bytes_that_are_no_message():
    call = channel.unary_unary("/atomix.pb.map.MapService/Put")
    try:
        call(b"\xff\xff\xff")
        raise AssertionError("answered")
    except grpc.RpcError as error:
        assert error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT), error.code()


def open_stream(**keywords):
    call = cluster_pb2_grpc.ClusterServiceStub(channel).JoinCluster(cluster_pb2.JoinClusterRequest(), **keywords)
    next(call)
    return call


@check
def a_deadline_ends_a_call():
    expect(grpc.StatusCode.DEADLINE_EXCEEDED, None, next, open_stream(timeout=0.3))


@check
def a_call_that_is_cancelled():
    call = open_stream()
    call.cancel()
    expect(grpc.StatusCode.CANCELLED, None, next, call)
    backup = maps.Backup(iter(map_pb2.BackupRequest, None))
    next(backup)
    backup.cancel()
    put("after a cancelled stream")


@check
def metadata_of_the_client_is_no_obstacle():
    request = map_pb2.GetRequest(header=header("metadata"), key="metadata")
    maps.Get(request, metadata=(("authorization", "Bearer x"), ("trace-bin", b"\x00\xff")))


@check
def one_of_many_that_compare_and_set_wins():
    first = put("contended", b"0")
    outcomes = []

    def run(number):
        try:
            put("contended", b"%d" % number, version=first)
            outcomes.append(number)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.PERMISSION_DENIED

    threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(outcomes) == 1 and get("contended")[0] == b"%d" % outcomes[0]


def entry(key, value, term, timestamp):
    entry = map_pb2.Entry(key=key, digest=map_pb2.Digest(term=term, timestamp=timestamp))
    if value is not None:
        entry.value.value, entry.value.version = value, timestamp
    return entry


def backup(*requests):
    """The statuses of the answers, and the status with which the stream ends."""
    answers = []
    call = maps.Backup(iter(requests), timeout=20)
    try:
        for answer in call:
            answers.append(answer.header.status)
    except grpc.RpcError as error:
        return answers, (error.code(), error.details())
    return answers, (grpc.StatusCode.OK, "")


# Partitions of their own, because a stream and a local mutation after it raise the term of theirs.
STREAM_KEY = "streamed"


@check
def a_stream_is_answered_once_for_each_request_and_its_entries_can_be_read():
    key = STREAM_KEY
    base = put(key, b"") + 1000
    request = lambda *entries: map_pb2.BackupRequest(header=header(key), entries=entries)
    answers, end = backup(
        request(entry(key, b"a", 50, base)),
        map_pb2.BackupRequest(),
        request(entry(key, b"a", 50, base), entry(key, b"b", 50, base + 1)),
        request(entry(key, b"old", 50, base - 1)),
    )
    assert answers == [headers_pb2.OK] * 4 and end[0] == grpc.StatusCode.OK, (answers, end)
    assert get(key) == (b"b", base + 1)
    # A removal, and a put from before it.
    answers, _ = backup(request(entry(key, None, 50, base + 3)), request(entry(key, b"late", 50, base + 2)))
    assert answers == [headers_pb2.OK] * 2 and get(key) is None
    # A local mutation rises above what was seen, and shuts the old term out.
    assert put(key, b"own") == base + 4
    answers, end = backup(request(entry(key, b"stale", 50, base + 9)), request(entry(key, b"behind", 60, base + 9)))
    assert answers == [headers_pb2.ERROR] and end == (grpc.StatusCode.FAILED_PRECONDITION, "stale term"), (answers, end)
    assert get(key) == (b"own", base + 4)


@check
def a_stream_with_a_malformed_entry_ends():
    key = "malformed"
    bad = entry(key, b"x", 1, 5)
    bad.value.version = 6
    request = map_pb2.BackupRequest(header=header(key), entries=[bad])
    answers, end = backup(map_pb2.BackupRequest(), request)
    assert answers == [headers_pb2.OK, headers_pb2.ERROR] and end[0] == grpc.StatusCode.INVALID_ARGUMENT, (answers, end)
    request = map_pb2.BackupRequest(header=header(partition=0), entries=[entry(key, b"x", 1, 5)])
    answers, end = backup(request)
    assert answers == [headers_pb2.ERROR] and end == NOT_FOUND, (answers, end)
    assert get(key) is None


@check
def partitions_find_their_primary():
    partitions = partition_pb2_grpc.PartitionServiceStub(channel)
    group_id = partition_pb2.PartitionGroupId(name="test", namespace="default")
    call = partitions.JoinPartitionGroup(partition_pb2.JoinPartitionGroupRequest(group_id=group_id))
    group = next(call).group
    call.cancel()
    assert group.id == group_id
    assert [(p.id.index, p.id.name) for p in group.partitions] == [(n, "test-%d" % n) for n in range(1, PARTITIONS + 1)]
    for partition in group.partitions:
        assert partition.term >= 1 and len(partition.members) == 1 and partition.members[0].id == partition.leader
        assert "%s:%d" % (partition.members[0].host, partition.members[0].port) == sys.argv[1]


@check
def the_cluster_has_one_member():
    call = cluster_pb2_grpc.ClusterServiceStub(channel).JoinCluster(
        cluster_pb2.JoinClusterRequest(cluster_id=cluster_pb2.ClusterId(name="c", namespace="n"))
    )
    answer = next(call)
    call.cancel()
    assert answer.cluster_id.name == "c" and len(answer.members) == 1


@check
def health_is_told():
    call = channel.unary_unary("/grpc.health.v1.Health/Check")
    for service in (b"", b"atomix.pb.map.MapService", b"atomix.partition.PartitionService"):
        assert call(bytes([10, len(service)]) + service) == b"\x08\x01", "SERVING is 1"
    expect(grpc.StatusCode.NOT_FOUND, None, call, b"\x0a\x01x")


@check
def services_are_told_by_reflection():
    for version in ("v1", "v1alpha"):
        call = channel.stream_stream("/grpc.reflection.%s.ServerReflection/ServerReflectionInfo" % version)
        # list_services is field 7.
        answer = next(call(iter([b"\x3a\x01*"])))
        for service in (b"atomix.pb.map.MapService", b"atomix.cluster.ClusterService", b"grpc.health.v1.Health"):
            assert service in answer, service


passed = failed = 0
for function in checks:
    try:
        function()
        passed += 1
    except Exception as error:  # noqa: BLE001
        failed += 1
        print("FAIL %s: %s: %s" % (function.__name__, type(error).__name__, error))
print("%d passed, %d failed" % (passed, failed))
sys.exit(1 if failed else 0)
