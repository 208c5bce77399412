from pathlib import Path

import pytest

from bench.peers import PEERS, PINNED, nginx
from bench.processes import Process
from bench.targets import Mock, Skipped


def unstarted(process: Process) -> Process:
    raise AssertionError(process)


@pytest.mark.parametrize("name", sorted(PINNED))
def test_a_peer_that_is_not_installed_is_skipped_with_the_reason(
    name: str, tmp_path: Path, mock: Mock
) -> None:
    with pytest.raises(Skipped, match="is not installed"):
        PEERS[name](mock, tmp_path, unstarted)


def test_nginx_is_taken_from_the_path(
    tmp_path: Path, mock: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(Skipped, match="PATH"):
        nginx(mock, tmp_path, unstarted)


@pytest.fixture
def mock() -> Mock:
    never = Process.__new__(Process)
    return Mock(grpc_port=1, http_port=2, process=never)
