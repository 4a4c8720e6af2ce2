"""A listening port: HTTP/1.1 with keep-alive, a thread per connection, and full say over how a connection ends.

Written on plain sockets because faults need it: an answer may be withheld, a connection closed or reset at any point,
and a port closed and opened again. Answers leave in one write with TCP_NODELAY, so no delayed acknowledgement stalls
a caller.
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

from sandbox.messages import Answer, Drop, Reply, Request, Stream, text_answer

MAX_HEAD = 64 * 1024
MAX_BODY = 64 * 1024 * 1024


class Malformed(Exception):
    """The bytes received are not a request this listener reads."""


class Connection:
    """Reads requests from one socket and writes their answers, one after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.busy = False
        self._buffer = b""

    def receive(self) -> Request | None:
        """The next request; None when the caller has gone. Raises Malformed."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise Malformed("head too long")
            if not self._more():
                return None
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        try:
            request = Request(head)
        except ValueError:
            raise Malformed("no request line") from None
        request.body = self._body(request)
        return request

    def _body(self, request: Request) -> bytes:
        if request.header("Transfer-Encoding"):
            raise Malformed("send a Content-Length")
        length = request.header("Content-Length") or "0"
        if not length.isdigit() or int(length) > MAX_BODY:
            raise Malformed("unusable Content-Length")
        wanted = int(length)
        if wanted > len(self._buffer) and (request.header("Expect") or "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces, have = [self._buffer], len(self._buffer)
        while have < wanted:
            piece = self.sock.recv(min(1 << 18, wanted - have))
            if not piece:
                raise Malformed("body ended early")
            pieces.append(piece)
            have += len(piece)
        whole = b"".join(pieces)
        self._buffer = whole[wanted:]
        return whole[:wanted]

    def _more(self) -> bool:
        piece = self.sock.recv(1 << 16)
        self._buffer += piece
        return bool(piece)

    def end(self, *, reset: bool = False) -> None:
        """Closes at once; with `reset` the caller sees a reset instead of an orderly end."""
        with contextlib.suppress(OSError):
            if reset:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


class Listener:
    """One port. `respond` is called in the connection's own thread, once per request."""

    def __init__(self, *, host: str, port: int, respond: Callable[[Request], Reply]) -> None:
        self.host = host
        self.port = port
        self._respond = respond
        self._socket: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def open(self) -> None:
        """Starts listening; nothing happens when open. Port 0 takes a free port, and keeps it when opened again."""
        with self._lock:
            if self._socket is not None:
                return
            listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind((self.host, self.port))
                listening.listen(1024)
            except OSError:
                listening.close()
                raise
            self.port = listening.getsockname()[1]
            self._socket = listening
        threading.Thread(target=self._accept, args=(listening,), name=f"port-{self.port}", daemon=True).start()

    def close(self, *, abandon: bool = False) -> None:
        """Stops listening: connecting is refused from now on, idle connections end, calls under way are still answered.

        With `abandon` the calls under way lose their connection too.
        """
        with self._lock:
            listening, self._socket = self._socket, None
            ending = [one for one in self._connections if abandon or not one.busy]
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        for connection in ending:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _accept(self, listening: socket.socket) -> None:
        while self._socket is listening:
            try:
                sock, _ = listening.accept()
            except OSError:
                time.sleep(0.01)  # closed, or out of descriptors for a moment
                continue
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock)
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: Connection) -> None:
        reset = False
        try:
            while self.is_open and (request := connection.receive()) is not None:
                connection.busy = True
                reply = self._respond(request)
                if isinstance(reply, Drop):
                    reset = reply.reset
                    break
                if isinstance(reply, Stream):
                    for piece in reply.pieces:
                        connection.sock.sendall(piece)
                    break
                if not self._write(connection, request, reply):
                    break
                connection.busy = False
        except Malformed as error:
            with contextlib.suppress(OSError):
                connection.sock.sendall(text_answer(400, str(error)).rendered(close=True))
        except OSError:
            pass
        finally:
            connection.end(reset=reset)
            with self._lock:
                self._connections.discard(connection)

    def _write(self, connection: Connection, request: Request, answer: Answer) -> bool:
        """Sends the answer; true when the connection stays."""
        close = not self.is_open or request.closes
        connection.sock.sendall(answer.rendered(close=close, without_body=request.method == "HEAD"))
        return not close
