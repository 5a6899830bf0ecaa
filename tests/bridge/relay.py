"""A line between two bridges that is long, or slow: a relay on the loopback that keeps bytes for a while."""

from __future__ import annotations

import asyncio
import threading
from contextlib import ExitStack

CHUNK = 16 * 1024


class Relay:
    """Carries one endpoint's connections.

    Parameters
    ----------
    stack : ExitStack
        Ends it.
    endpoint : str
        Where they go.
    there_s, back_s : float
        For how long each byte is under way (in seconds), for each direction.
    rate : float
        Bytes per second, for each direction.
    """

    def __init__(
        self, stack: ExitStack, endpoint: str, there_s: float = 0.0, back_s: float = 0.0, rate: float = 1e9
    ) -> None:
        self._target = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
        self._delays = there_s, back_s
        self._rate = rate
        self._ready = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        thread.start()
        assert self._ready.wait(10)

        def end() -> None:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(10)

        stack.callback(end)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with await asyncio.start_server(self._carry, "127.0.0.1", 0) as server:
            self.endpoint = f"tcp/127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self._ready.set()
            await self._stop.wait()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        there, back = self._delays
        try:  # a connection that is carried at the end of the test is cancelled, which is no news to anybody
            await asyncio.gather(self._pass(reader, far_writer, there), self._pass(far_reader, writer, back))
        except asyncio.CancelledError:
            pass
        finally:
            for end in (writer, far_writer):
                end.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        """Carry one direction: a chunk leaves when the line is free, and arrives the delay later."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def arrive() -> None:
            while True:
                due, chunk = await under_way.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                writer.write(chunk)
                await writer.drain()

        arriving = asyncio.create_task(arrive())
        try:
            while chunk := await reader.read(CHUNK):
                await asyncio.sleep(len(chunk) / self._rate)
                await under_way.put((self._loop.time() + delay, chunk))
        except OSError:
            pass
        finally:
            arriving.cancel()
            writer.close()
