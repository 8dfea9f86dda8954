"""How fast a stage is now and what is left: steady, behind a model that loads long, in lumps, and standing still."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pipelines.progress_rate import Pace, clock, rate_told


def pace_of(changes: Iterable[tuple[float, float]], before: float = 0) -> Pace:
    """A pace from second 0 on, told (second, done)."""
    pace = Pace(0.0, before)
    for second, done in changes:
        pace.note(second, done)
    return pace


def test_the_time_a_model_takes_to_load_weighs_on_the_rate_for_a_minute_only() -> None:
    loads_s = 600
    pace = pace_of((loads_s + i, i) for i in range(1, 31))  # one per second
    assert pace.per_second(630) == 0.5  # 30 in the last minute, half of which it loaded
    for i in range(31, 121):
        pace.note(loads_s + i, i)
    assert pace.per_second(720) == 1.0
    assert pace.left_s(720, 1000) == 880
    assert pace.on_average() == 120 / 720


def test_what_came_before_the_first_is_left_out_as_soon_as_much_time_has_passed() -> None:
    pace = pace_of((10 + i, i) for i in range(1, 11))
    assert pace.per_second(20) == 10 / 20  # 9 seconds after the first, which took 11
    pace.note(22, 12)
    assert pace.per_second(22) == 11 / 11
    lumps = pace_of([(60, 16), (120, 32)])  # 16 workers, each a minute for one: that is no loading
    assert lumps.per_second(120) == 32 / 120


def test_what_got_faster_or_slower_is_told_as_it_is_now() -> None:
    pace = pace_of((second, 10 * second) for second in range(1, 101))
    assert pace.per_second(100) == 10
    for i in range(1, 61):
        pace.note(100 + i, 1000 + i)
    assert pace.per_second(160) == 1


def test_many_changes_in_a_second_count_all() -> None:
    pace = pace_of((i / 100, i) for i in range(1, 20_001))  # 200 seconds
    assert pace.per_second(200) == pytest.approx(100, rel=0.02)
    assert len(pace._marks) < 130  # a long job holds no more
    assert pace.on_average() == 100


def test_slow_work_in_lumps_is_told_over_more_than_a_minute() -> None:
    pace = pace_of((100 * i, 32 * i) for i in range(1, 11))  # a part of 32 every 100 seconds
    assert pace.per_second(1000) == 0.32
    assert pace.per_second(1050) == 128 / 450
    assert pace.left_s(1000, 640) == 1000


def test_what_stands_still_gets_slower_and_slower() -> None:
    pace = pace_of((second, second) for second in range(1, 101))
    rates = [pace.per_second(second) for second in (100, 160, 400)]
    assert rates == [1.0, 60 / 120, 60 / 360]


@pytest.mark.parametrize(
    ("now_s", "done", "total", "left_s"),
    [
        (10, 0, 100, None),
        (10, 4, 100, None),  # too early to tell
        (10, 5, 100, 190),  # 5 %
        (29, 4, 1000, None),  # since the first: 19.9 seconds
        (30, 4, 1000, 7470),  # and 20.9
        (10, 8, None, None),
        (10, 100, 100, 0),
        (10, 8, 4, 0),  # more than was thought
    ],
)
def test_time_left_is_told_once_it_can_be_known(
    now_s: float, done: float, total: float | None, left_s: float | None
) -> None:
    pace = pace_of([(9.1, done)] if done else [])
    assert pace.left_s(now_s, total) == left_s


def test_what_was_done_before_the_clock_began_makes_nothing_faster() -> None:
    pace = pace_of([(10, 520)], before=500)
    assert (pace.per_second(10), pace.on_average()) == (2, 2)
    assert pace.left_s(10, 1000) is None  # 20 of 500
    pace.note(11, 525)
    assert pace.left_s(11, 1000) == 475 / (25 / 11)


def test_words() -> None:
    assert [rate_told(rate, "files") for rate in (0, 0.004, 0.49, 0.5, 4.25)] == [
        "", "0.2 files/min", "29.4 files/min", "0.5 files/s", "4.2 files/s",
    ]  # fmt: skip
    assert [clock(s) for s in (0, 7.4, 59.6, 750, 3723)] == ["0:00", "0:07", "1:00", "12:30", "1:02:03"]
