import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from transfer import files
from transfer.cache import claim, claims

ABOUT = {"weights": "a"}


def silent(line: str) -> None:
    pass


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where claims on `ABOUT`, of no images, lie beside."""
    (tmp_path / "activations").mkdir()
    return claims.place_of("activations", {**ABOUT, "images": []}, tmp_path)


def marks(place: Path) -> list[Path]:
    return list(place.parent.glob(".*.partial"))


def foreign(place: Path) -> Path:
    mark = place.parent / f".{place.name}.elsewhere-1.0a1b2c3d.partial"
    mark.touch()
    return mark


def take(place: Path, look: Callable[[], object] = lambda: None, say: Callable[[str], None] = silent):
    return claim("activations", ABOUT, place.parents[1], [], look, say)


def test_a_claim_is_there_while_the_work_lasts_and_gone_after_an_error(place: Path) -> None:
    def work() -> None:
        with take(place):
            assert len(marks(place)) == 1
            raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        work()
    assert not marks(place)


def test_what_is_there_already_is_yielded_and_nothing_claimed(place: Path) -> None:
    with take(place, lambda: "rows") as found:
        assert found == "rows"
        assert not marks(place)


def test_who_comes_second_waits_says_so_once_and_finds_what_the_first_has_made(place: Path) -> None:
    made: list[str] = []
    said: list[str] = []
    is_waiting = threading.Event()
    found: list[object] = []

    def say(line: str) -> None:
        said.append(line)
        is_waiting.set()

    def second() -> None:
        with take(place, lambda: made[0] if made else None, say) as rows:
            found.append(rows)

    thread = threading.Thread(target=second)
    with take(place):
        thread.start()
        assert is_waiting.wait(60)
        made.append("rows")
    thread.join()
    assert found == ["rows"]
    assert len(said) == 1
    assert said[0].startswith("Waiting for process ")
    assert not marks(place)


def test_of_many_at_once_one_works(place: Path) -> None:
    made: list[int] = []
    ready = threading.Barrier(8)

    def work(number: int) -> None:
        ready.wait()
        with take(place, lambda: made or None) as found:
            if not found:
                made.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert not marks(place)


def test_a_claim_that_does_not_change_is_taken_over(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_LIMIT_SECONDS", 0.3)
    mark = foreign(place)
    with take(place) as found:
        assert found is None
        assert not mark.exists()


def test_a_claim_that_changes_is_respected_whatever_the_time_on_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other machine's clock is years behind; only that the time changes counts."""
    monkeypatch.setattr(claims, "_LIMIT_SECONDS", 0.5)
    mark = foreign(place)
    watch = claims._Watch(place, silent)
    clock = [100.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: clock[0])
    for second in range(10):
        os.utime(mark, (second, second))
        clock[0] += 0.4
        assert watch.others() == [("elsewhere", 1)]
    clock[0] += 0.6
    assert watch.others() == []


def test_a_claim_of_a_dead_one_that_had_our_number_is_nobodys(place: Path) -> None:
    """In a container the first process always has the same."""
    left = files.make_mark(place)
    with take(place):
        assert not left.exists()
        assert len(marks(place)) == 1


def test_where_no_claim_can_be_written_the_work_goes_on(tmp_path: Path) -> None:
    with claim("activations", ABOUT, tmp_path / "nothing", [], lambda: None, silent) as found:
        assert found is None


def test_a_claim_that_was_taken_over_is_not_made_anew(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_lost = threading.Event()

    def renew(mark: Path) -> bool:
        is_there = files.touch(mark)
        if not is_there:
            is_lost.set()
        return is_there

    monkeypatch.setattr(claims, "_RENEWAL_SECONDS", 0.01)
    monkeypatch.setattr(claims, "touch", renew)
    with take(place):
        marks(place)[0].unlink()
        assert is_lost.wait(60)
        assert not marks(place)
