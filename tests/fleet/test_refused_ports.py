"""Who has no port: told once, tried later and later, and at once when a port is free."""

from revtunnel.fleet.refused_ports import AT_ONCE, RefusedPorts


def none(pool: str) -> int:
    """No pool has a port to give."""
    return 0


def test_it_is_told_once_and_tried_later_each_time() -> None:
    """After 2, 4, 8 seconds and so on, in the end every minute."""
    refused, now, waits = RefusedPorts(lambda: 0.0), 0.0, []
    assert refused.add("a", "x", "why", now, None)
    for _ in range(8):
        before = now
        while not refused.due(now, none):
            now += 1.0
        waits.append(now - before)
        assert not refused.add("a", "x", "why else", now, None)
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert refused.of("a") == {"x": "why else"}
    refused.drop("a", "x")
    assert refused.of("a") == {}
    assert refused.due(1e6, none) == []


def test_a_port_that_comes_free_is_for_who_waits_longest() -> None:
    """As many as are free, of that pool, and nobody whom a port does not help."""
    refused = RefusedPorts(lambda: 0.0)
    for serial, pool in (("a", "p"), ("b", None), ("c", "q"), ("d", "p"), ("e", "p")):
        refused.add(serial, "x", "full", 0.0, pool)
    assert refused.due(1.0, {"p": 2, "q": 0}.__getitem__) == [("a", "x"), ("d", "x")]
    refused.drop("a", "x")
    refused.add("d", "x", "cannot be bound", 1.0, None)
    assert refused.due(1.0, {"p": 2, "q": 0}.__getitem__) == [("e", "x")]


def test_a_step_is_bounded() -> None:
    """Who is not looked at in this step is in the next one."""
    refused = RefusedPorts(lambda: 0.0)
    for number in range(3 * AT_ONCE):
        refused.add(f"d-{number}", "x", "full", 0.0, None)
    looked = [refused.due(10.0, none) for _ in range(4)]
    assert [len(each) for each in looked] == [AT_ONCE, AT_ONCE, AT_ONCE, 0]
    assert len({use for each in looked for use in each}) == 3 * AT_ONCE


def test_what_is_wanted_no_more_is_forgotten() -> None:
    """Of one device, all but what it offers."""
    refused = RefusedPorts(lambda: 0.0)
    for target in ("x", "y", "z"):
        refused.add("a", target, "full", 0.0, "p")
    refused.keep("a", {"y"})
    refused.keep("b", set())
    assert refused.of("a") == {"y": "full"}
    refused.keep("a", set())
    assert refused.due(1e6, lambda pool: 9) == []
