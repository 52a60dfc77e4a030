"""Sums of bytes: of what runs and of what has ended, each byte once."""

from revtunnel.daemons.traffic import PAGE, STEP, Traffic
from tests.support.desk import Desk


def sums(traffic: Traffic) -> tuple[int, int]:
    """Both ways."""
    return traffic.to_device, traffic.to_client


def test_sums_never_fall_and_count_nothing_twice() -> None:
    """While it runs, when it has ended, and with a second one beside it."""
    desk = Desk()
    traffic = desk.web.traffic
    client, service = desk.talk("console")
    client.say(b"x" * 1000)
    service.say(b"y" * 300)
    desk.pump()
    assert sums(traffic) == (0, 0)
    desk.advance(STEP)
    sent = sums(traffic)
    assert sent[0] >= 1000
    assert sent[1] >= 300
    client.finish()
    service.finish()
    desk.advance(STEP)
    assert desk.operator.channels()[0] == []
    assert sums(traffic) == sent
    other, _ = desk.talk("web")
    other.say(b"x" * 50)
    desk.advance(STEP)
    assert sums(traffic)[0] >= sent[0] + 50
    traffic.stop()


def test_a_long_walk_leaves_the_loop_its_turn() -> None:
    """In pages; what it finds counts when it is done."""
    desk = Desk()
    traffic = desk.web.traffic
    asked: list[int] = []
    desk.talk("console")
    [row] = desk.switchboard.streams.rows("plc-1")

    def page(after: tuple[str, int], limit: int) -> list[object]:
        asked.append(limit)
        return [row._replace(bytes_to_device=1)] * (limit if len(asked) < 3 else 5)

    desk.switchboard.streams.page = page  # type: ignore[method-assign, assignment]
    steps = traffic._walk()
    assert [next(steps), next(steps)] == [None, None]
    assert traffic.to_device == 0
    assert list(steps) == []
    assert (traffic.to_device, asked) == (2 * PAGE + 5, [PAGE] * 3)
