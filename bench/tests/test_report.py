"""The report of scripts/bench; nothing is measured here."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from bench import chart, comparison, connections, pairings, pgbench, report
from bench.run import Record
from bench.servers import OURS, PEER_LIST
from harness.load_client import TIME_DIGITS, TIME_MARK, frame_template, percentile, sent_times

RELAY = connections.RELAY[0].name


def record(server: str, benchmark: str = RELAY, **values: float) -> Record:
    return Record(benchmark, server, server.upper(), values)


def figure(records: list[Record], beginning: str) -> report.Figure:
    return next(found for found in report.figures(records) if found.name.startswith(beginning))


def test_a_frame_has_exactly_the_size_asked_for() -> None:
    for size in (220, 8192):
        before, after = frame_template('{"payload":', "}", size)
        assert len(before) + TIME_DIGITS + len(after) == size
        assert before.encode().endswith(TIME_MARK)


def test_every_peer_is_sent_frames_of_the_same_size() -> None:
    for peer in PEER_LIST:
        for size in (220, 8192):
            endpoint = peer.endpoint(1, "p1", "a", size)
            assert len(endpoint.before) + TIME_DIGITS + len(endpoint.after) == size, peer.key


def test_the_length_in_a_nats_frame_is_that_of_its_body() -> None:
    nats = next(peer for peer in PEER_LIST if peer.key == "nats")
    for size in (220, 8192):
        endpoint = nats.endpoint(1, "p123", "a", size)
        head, _, body = (endpoint.before + "0" * TIME_DIGITS + endpoint.after).partition("\r\n")
        assert int(head.split()[-1]) == len(body.removesuffix("\r\n"))


def test_the_times_of_all_messages_in_a_frame_are_read() -> None:
    before, after = frame_template("", "", 100)
    assert sent_times(f"{before}{7:016x}{after}{before}{255:016x}{after}".encode()) == [7, 255]
    assert sent_times(b'{"type":"pong"}') == []


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile(range(1, 101), 0.50) == 50
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([7], 0.99) == 7
    assert math.isnan(percentile([], 0.5))


def test_a_figure_is_a_ratio_within_one_run() -> None:
    records = [record(OURS, cpu_us=30.0), record("ws", cpu_us=60.0), record("tornado", cpu_us=120.0)]
    met = figure(records, f"{RELAY}: CPU, share of node ws's")
    missed = figure(records, f"{RELAY}: CPU, share of stock Tornado's")
    assert (met.measured, met.met) == (0.5, True)
    assert (missed.measured, missed.met) == (0.25, False)


def test_a_figure_that_was_not_measured_is_neither_reached_nor_missed() -> None:
    assert all(found.met is None for found in report.figures([]))


def test_more_pairings_are_better() -> None:
    posts = record("tornado", pairings.POSTS, rate=1000.0)
    few = figure([record(OURS, pairings.PAIRINGS, rate=300.0), posts], "pairings")
    many = figure([record(OURS, pairings.PAIRINGS, rate=400.0), posts], "pairings")
    assert (few.met, many.met) == (False, True)


def test_the_report_names_what_failed_and_what_was_skipped() -> None:
    failed = Record(RELAY, "nats", "nats-server", {}, "it hung up")
    text = report.markdown([record(OURS, cpu_us=30.0), failed], ["node ws: not installed"], {"cores": "2"})
    assert "failed: it hung up" in text
    assert "- node ws: not installed" in text
    assert "| cores | 2 |" in text


def test_the_picture_is_well_formed_and_has_a_bar_for_each_server() -> None:
    records = [record(OURS, cpu_us=30.0), record("a<b", cpu_us=60.0)]
    picture = ElementTree.fromstring(chart.svg(records, "R&D"))
    bars = [found for found in picture.iter() if found.get("class") in ("ours", "bar")]
    assert [float(bar.get("width", "0")) for bar in bars] == [chart.BAR / 2, chart.BAR]


def test_pgbench_is_given_the_servers_own_statements_with_all_values_in_place() -> None:
    lines = pgbench.script().splitlines()
    assert [line.partition(" ")[0] for line in lines] == [
        "\\set",
        "\\set",
        "WITH",
        "BEGIN;",
        "SET",
        "WITH",
        "COMMIT;",
    ]
    assert "$" not in "".join(lines)
    assert all("audit_events" in line for line in lines if line.startswith("WITH"))


def test_a_comparison_shows_the_medians_and_the_share_of_each_round() -> None:
    used = {"relay": [(9.0, 10.0), (8.0, 10.0), (11.0, 10.0)]}
    row = comparison.table(used, "this", "other").splitlines()[-1]
    assert row == "| relay | 9.00 | 10.00 | 0.900 | 0.800 | 0.900, 0.800, 1.100 |"
