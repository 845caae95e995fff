"""list_keys.py PORT BUCKET : lists the keys of a bucket again and again, and says how many there are and how long each listing took."""

import socket
import struct
import sys
import time

LIST_KEYS_REQUEST, LIST_KEYS_REPLY = 17, 18
# Fields of the reply: keys, one after the other, and at last that all have come.
KEY, DONE = b"\x0a", b"\x10"


def varint(message, at):
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def frame(connection):
    head = exactly(connection, 5)
    size, code = struct.unpack(">IB", head)
    return code, exactly(connection, size - 1)


def exactly(connection, size):
    received = bytearray()
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            sys.exit("list_keys.py: the server closed the connection")
        received += part
    return bytes(received)


def keys_in(message):
    """How many keys a reply holds, and whether it is the last."""
    keys, at = 0, 0
    while at < len(message):
        field = message[at : at + 1]
        number, at = varint(message, at + 1)
        if field == KEY:
            keys += 1
            at += number
        elif field == DONE:
            return keys, number == 1
        else:
            sys.exit(f"list_keys.py: unknown field {field!r}")
    return keys, False


def main():
    port, bucket = int(sys.argv[1]), sys.argv[2].encode()
    connection = socket.create_connection(("127.0.0.1", port))
    request = b"\x0a" + bytes([len(bucket)]) + bucket
    while True:
        began, keys, done = time.monotonic(), 0, False
        connection.sendall(struct.pack(">IB", 1 + len(request), LIST_KEYS_REQUEST) + request)
        while not done:
            code, message = frame(connection)
            if code != LIST_KEYS_REPLY:
                sys.exit(f"list_keys.py: the server answered with code {code}: {message!r}")
            more, done = keys_in(message)
            keys += more
        print(f"{keys} keys listed in {time.monotonic() - began:.1f} s", flush=True)


main()
