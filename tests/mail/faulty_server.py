"""An SMTP server, down to its lines, that does one wrong thing at one moment of the conversation and is well-behaved else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum


class Moment(StrEnum):
    """What the server has just been told when it goes wrong; the greeting answers the connection itself."""

    GREETING = ""
    EHLO = "EHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "."


class Fault(StrEnum):
    """What it does then. A code is an answer with this code, and then it goes on."""

    FOR_NOW = "451"
    FOR_GOOD = "554"
    SHUTS_DOWN = "421"
    DROPS = "drops"
    RESETS = "resets"
    HANGS = "hangs"
    NONSENSE = "nonsense"
    HALF_AN_ANSWER = "half an answer"


_ANSWERS = {"EHLO": "250 mail.test", "HELO": "250 mail.test", "DATA": "354 go on", "QUIT": "221 bye"}


@dataclass
class FaultyServer:
    """One fault, and the contents that the server has taken."""

    moment: Moment
    fault: Fault
    taken: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told = Moment.GREETING.value
        content: list[bytes] = []
        try:
            while await self._answers(told, writer, content):
                line = await reader.readline()
                if not line:
                    break
                if told == "DATA" and self.moment is not Moment.DATA:
                    while line != b".\r\n":
                        content.append(line)
                        line = await reader.readline()
                told = line.decode().split()[0].upper()
        except ConnectionError:
            pass  # the other side has had enough, too
        finally:
            writer.close()

    async def _answers(self, told: str, writer: asyncio.StreamWriter, content: list[bytes]) -> bool:
        """Answer; False where the conversation ends with it."""
        goes_wrong = told == self.moment.value or (told == "HELO" and self.moment is Moment.EHLO)
        if not goes_wrong:
            if told == ".":
                self.taken.append(b"".join(content))
            writer.write(f"{_ANSWERS.get(told, '220 mail.test' if told == '' else '250 OK')}\r\n".encode())
            return told != "QUIT"
        match self.fault:
            case Fault.DROPS:
                return False
            case Fault.RESETS:
                writer.transport.abort()
                return False
            case Fault.HANGS:
                await asyncio.Event().wait()
            case Fault.NONSENSE:
                writer.write(b"\xff\xfe HTTP/1.1 400 Bad Request\r\n")
            case Fault.HALF_AN_ANSWER:
                writer.write(b"250-")
                return False
            case _:
                writer.write(f"{self.fault.value} 4.0.0 no\r\n".encode())
        return True


@asynccontextmanager
async def faulty_server(server: FaultyServer) -> AsyncIterator[int]:
    """The server on a free port of this machine; its port."""
    conversations: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        conversations.add(task)
        await server.serve(reader, writer)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)
