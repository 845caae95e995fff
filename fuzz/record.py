#!/usr/bin/env python3
"""record.py PORT DIR : stands between a client and the server on PORT, and keeps what passes as inputs for the fuzzer.

Prints the port that it listens on, and runs until it is ended. Each input is a file named by its content:
  DIR/session    all that a client sent on one connection
  DIR/message    each frame of either side, without its length
  DIR/mapreduce  the text of each MapReduce job, behind a byte that says its form
  DIR/context    each causal context that a client sent
"""
import asyncio
import hashlib
import pathlib
import sys

# Transcripts also send what is too long on purpose.
INPUT_BYTES_MAX = 4096
CODE_MAP_REDUCE = 23
# Field numbers of contexts: put, delete, update.
CONTEXT_FIELDS = {11: 3, 13: 4, 82: 4}


def keep(folder, data):
    if 0 < len(data) <= INPUT_BYTES_MAX:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha1(data).hexdigest()[:16]).write_bytes(data)


def frames(stream):
    while len(stream) >= 5:
        length = int.from_bytes(stream[:4], "big")
        if length == 0 or len(stream) < 4 + length:
            return
        yield stream[4], stream[5:4 + length]
        stream = stream[4 + length:]


def varint(data):
    value = shift = used = 0
    for byte in data:
        used += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, data[used:]
    raise ValueError("a number is cut")


def fields(message):
    """The bytes fields of a message by number, as far as it is one."""
    found = {}
    try:
        while message:
            key, message = varint(message)
            number, wire_type = key >> 3, key & 7
            if wire_type == 0:
                _, message = varint(message)
            elif wire_type == 2:
                length, message = varint(message)
                found[number], message = message[:length], message[length:]
            else:
                break
    except ValueError:
        pass
    return found


def keep_request(out, code, payload):
    keep(out / "message", bytes([code]) + payload)
    if code == CODE_MAP_REDUCE:
        job = fields(payload)
        form = b"\0" if job.get(2) == b"application/json" else b"\1"
        keep(out / "mapreduce", form + job.get(1, b""))
    if code in CONTEXT_FIELDS:
        keep(out / "context", fields(payload).get(CONTEXT_FIELDS[code], b""))


async def pass_on(reader, writer, passed):
    try:
        while data := await reader.read(65536):
            passed += data
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        pass


async def main(port, out):
    async def connected(from_client, to_client):
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        sent, answered = bytearray(), bytearray()
        there = asyncio.create_task(pass_on(from_client, to_server, sent))
        # The server has the last word: after it the client's rest interests nobody.
        await pass_on(from_server, to_client, answered)
        there.cancel()
        await asyncio.wait([there])
        to_server.close()
        to_client.close()
        keep(out / "session", bytes(sent))
        for code, payload in frames(bytes(sent)):
            keep_request(out, code, payload)
        for code, payload in frames(bytes(answered)):
            keep(out / "message", bytes([code]) + payload)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    asyncio.run(main(int(sys.argv[1]), pathlib.Path(sys.argv[2])))
