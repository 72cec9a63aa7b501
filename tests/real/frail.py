"""A server that can be killed at its worst moment: `frail.py PORT`. No dependencies.

| request | answer |
|---|---|
| GET …/half | a head that announces 100,000 bytes, 1,000 of them, and then nothing |
| GET …/hang | nothing at all |
| anything else | 200 |
"""

import asyncio
import sys


async def serve(reader, writer):
    while head := await reader.readuntil(b"\r\n\r\n"):
        path = head.split(b" ", 2)[1]
        if path.endswith(b"/half"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 1000)
        elif not path.endswith(b"/hang"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell")
            continue
        # What it has begun it never ends, and it does not notice that its client leaves.
        await asyncio.Event().wait()


async def main(port):
    server = await asyncio.start_server(until_closed, "127.0.0.1", port)
    await server.serve_forever()


async def until_closed(reader, writer):
    try:
        await serve(reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


asyncio.run(main(int(sys.argv[1])))
