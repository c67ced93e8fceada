"""The files of the gateway's sockets are made anew when they are deleted; connections stay."""

import shutil
import socket as system
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from glowd.daemon.runtime import sockets
from glowd.daemon.runtime.sockets import Socket, SocketFile, renew_files
from tests.harness.waiting import WAIT_S


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path / "run"


@pytest.fixture
def context() -> Iterator[sockets.Context]:
    with zmq.Context() as context:
        yield context
        context.destroy(linger=0)


@pytest.fixture
def bound(context: sockets.Context, directory: Path) -> Socket:
    return sockets.bind_clients(context, endpoint(directory), 1 << 20)


def endpoint(directory: Path) -> str:
    return f"ipc://{directory}/glowd.ipc"


def connect(context: sockets.Context, directory: Path) -> Socket:
    socket: Socket = context.socket(zmq.DEALER)
    socket.connect(endpoint(directory))
    return socket


def identity(bound: Socket, client: Socket, text: bytes) -> bytes:
    """The client sends, and the bound socket receives it: who is it?"""
    client.send(text)
    assert bound.poll(1000 * WAIT_S)
    name, said = bound.recv_multipart()
    assert said == text
    return name


def test_file_that_is_there_is_left_alone(bound: Socket, directory: Path) -> None:
    file = SocketFile(bound, endpoint(directory))
    assert not file.renew() and file.fault == ""


def test_deleted_file_is_made_anew_and_connections_stay(
    context: sockets.Context, bound: Socket, directory: Path
) -> None:
    file, old = SocketFile(bound, endpoint(directory)), connect(context, directory)
    name = identity(bound, old, b"before")
    for _ in range(2):
        (directory / "glowd.ipc").unlink()
        assert list(renew_files([file])) == [f"{endpoint(directory)} was deleted: it is made anew"]
        assert list(renew_files([file])) == []
    assert identity(bound, old, b"after") == name
    assert identity(bound, connect(context, directory), b"new") != name
    assert (directory / "glowd.ipc").stat().st_mode & 0o777 == 0o600


def test_file_waits_for_its_directory(bound: Socket, directory: Path) -> None:
    file = SocketFile(bound, endpoint(directory))
    shutil.rmtree(directory)
    (said,) = renew_files([file])
    assert "so no client can connect" in said and f"{directory} is not there" in said
    assert list(renew_files([file])) == []  # said once
    directory.mkdir(mode=0o700)
    assert list(renew_files([file])) == [f"{endpoint(directory)} was deleted: it is made anew"]


def test_file_of_another_program_is_not_taken_over(bound: Socket, directory: Path) -> None:
    file = SocketFile(bound, endpoint(directory))
    (directory / "glowd.ipc").unlink()
    with system.socket(system.AF_UNIX) as other:
        other.bind(str(directory / "glowd.ipc"))
        other.listen()
        (said,) = renew_files([file])
        assert "another program does" in said
    (said,) = renew_files([file])  # it has ended
    assert said.endswith("it is made anew")


def test_directory_of_another_user_is_not_used(bound: Socket, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = SocketFile(bound, endpoint(directory))
    (directory / "glowd.ipc").unlink()
    monkeypatch.setattr(SocketFile, "_folder_owner", lambda _: 54321)
    assert not file.renew() and "belongs to another user" in file.fault


def test_tcp_address_has_no_file(context: sockets.Context) -> None:
    socket = context.socket(zmq.ROUTER)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    file = SocketFile(socket, f"tcp://127.0.0.1:{port}")
    assert not file.renew() and file.fault == ""


def test_message_for_nobody_leaves_no_part_behind(bound: Socket, context: sockets.Context, directory: Path) -> None:
    client = connect(context, directory)
    name = identity(bound, client, b"here")
    with pytest.raises(zmq.ZMQError) as caught:
        sockets.send(bound, b"nobody", [b"head", b"payload"])
    assert caught.value.errno == zmq.EHOSTUNREACH
    sockets.send(bound, name, [b"one", b"two", b"three"])
    assert client.poll(1000 * WAIT_S)
    assert client.recv_multipart() == [b"one", b"two", b"three"]


def test_message_for_a_full_queue_leaves_no_part_behind(context: sockets.Context, directory: Path) -> None:
    bound = sockets.bind_clients(context, endpoint(directory), 1 << 20)
    client: Socket = context.socket(zmq.DEALER)
    client.setsockopt(zmq.RCVHWM, 1)
    client.connect(endpoint(directory))
    name, sent = identity(bound, client, b"here"), 0
    with pytest.raises(zmq.Again):
        for sent in range(100_000):
            sockets.send(bound, name, [b"%d" % sent, bytes(10_000)])
    for number in range(sent):
        assert client.poll(1000 * WAIT_S)
        assert [len(part) for part in client.recv_multipart()] == [len(b"%d" % number), 10_000]


def test_parts_of_a_role_are_read_in_order(context: sockets.Context, directory: Path) -> None:
    bound = sockets.bind_role(context, endpoint(directory))
    role: Socket = context.socket(zmq.DEALER)
    role.setsockopt(zmq.IDENTITY, b"engine:glow")
    role.connect(endpoint(directory))
    for parts in ([b"alone"], [b"head", b"payload"], [b"", b"", b"x"]):
        role.send_multipart(parts)
        assert bound.poll(1000 * WAIT_S)
        assert sockets.receive_of_role(bound) == (b"engine:glow", parts)
    with pytest.raises(zmq.Again):
        sockets.receive_of_role(bound)
