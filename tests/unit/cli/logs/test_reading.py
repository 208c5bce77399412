import json

from services.cli.logs.reading import LogFollower, line_of, lines_of, words
from services.cli.logs.rotation import turn_over


def entry(second, **facts):
    return json.dumps({"timestamp": f"2026-01-01T00:00:{second:02}Z", **facts}) + "\n"


def texts(lines):
    return [json.loads(line.text).get("n") for line in lines]


def test_lines_of_several_services_come_in_the_order_of_time_also_from_older_files(tmp_path):
    gateway, neuron = tmp_path / "gateway.log", tmp_path / "neuron.log"
    gateway.write_text(entry(1, n=1))
    turn_over(gateway)
    gateway.write_text(entry(3, n=3) + entry(5, n=5))
    neuron.write_text(entry(2, n=2) + entry(4, n=4))

    assert [1, 2, 3, 4, 5] == texts(lines_of(tmp_path, ["gateway", "neuron", "registry"]))
    assert [2, 4] == texts(lines_of(tmp_path, ["neuron"]))


def test_lines_of_one_request_are_found(tmp_path):
    (tmp_path / "gateway.log").write_text(
        entry(1, n=1, request_id="req_a") + entry(2, n=2, request_id="req_b")
    )

    assert [2] == texts(lines_of(tmp_path, ["gateway"], "req_b"))


def test_lines_that_threads_wrote_in_another_order_come_by_their_times(tmp_path):
    (tmp_path / "neuron.log").write_text(
        entry(2, n=2) + "plain\n" + entry(1, n=1) + entry(4, n=4) + entry(3, n=3)
    )

    found = [line.text for line in lines_of(tmp_path, ["neuron"])]

    assert "plain" == found.pop(2)
    assert [1, 2, 3, 4] == [json.loads(text)["n"] for text in found]


def test_what_is_no_json_stays_beside_the_line_before_it(tmp_path):
    (tmp_path / "neuron.log").write_text(entry(1) + "ggml: hello\n{half\n" + entry(9))
    (tmp_path / "gateway.log").write_text(entry(5))

    services = [line.service for line in lines_of(tmp_path, ["neuron", "gateway"])]

    assert ["neuron", "neuron", "neuron", "gateway", "neuron"] == services


def test_a_line_for_people_has_its_time_event_and_facts():
    raw = entry(1, level="info", event="request.finished", model="a b", empty=None, tokens=3)

    said = words(line_of(raw.encode(), "gateway", ""))

    assert '00:00:01 gateway  info    request.finished model="a b" tokens=3' == said
    assert "neuron   plain words" == words(line_of(b"plain words\n", "neuron", ""))


def test_a_follower_gets_every_line_once_also_when_the_file_is_turned_over(tmp_path):
    path = tmp_path / "gateway.log"
    path.write_text(entry(0, n=0))
    follower = LogFollower(tmp_path, "gateway")
    with path.open("a") as appended:

        def write(text):
            appended.write(text)
            appended.flush()

        write(entry(1, n=1) + entry(2, n=2)[:9])
        assert [1] == texts(follower.new_lines())
        write(entry(2, n=2)[9:] + entry(3, n=3))
        turn_over(path)
        write(entry(4, n=4))
        assert [2, 3, 4] == texts(follower.new_lines())
        write(entry(5, n=5))
        assert [5] == texts(follower.new_lines())
        assert [] == texts(follower.new_lines())


def test_what_others_have_written_into_a_log_is_read_whatever_it_is(tmp_path):
    lines = [
        b'{"level": null, "event": ["x"], "timestamp": 5}\n',
        b'{"level": {"a": 1}}\n',
        b'{"a": ' + b"[" * 100_000 + b"\n",
        b"\x00\xff\x1b[2J\n",
        b'{"a": ' + b"9" * 10_000 + b"}\n",
        b"x" * 5_000_000,
    ]
    (tmp_path / "gateway.log").write_bytes(b"".join(lines))

    said = [words(line) for line in lines_of(tmp_path, ["gateway"])]

    assert len(lines) == len(said)
