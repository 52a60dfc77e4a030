"""Which port that is kept for a device which is away is taken back first."""

from hypothesis import given
from hypothesis import strategies as st

from revtunnel.fleet.away_ports import AwayPorts


def test_who_keeps_most_goes_first_and_then_who_is_away_longest() -> None:
    """And a device that came back is not in the queue."""
    away = AwayPorts()
    for port, serial, since in ((1, "a", 10.0), (2, "b", 11.0), (3, "b", 12.0), (4, "c", 30.0)):
        away.add(port, serial, since)
    assert away.first(9.0) is None
    assert away.first(10.0) == 1
    assert away.first(12.0) == 2
    away.drop(2)
    assert away.first(12.0) == 1
    away.drop(1)
    assert away.first(29.0) == 3
    away.drop(3)
    assert away.first(29.0) is None
    assert away.first(30.0) == 4
    assert len(away) == 1


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["", "a", "b", "c"])), max_size=80), st.data())
def test_it_is_as_a_walk_over_all_would_have_it(steps: list[tuple[int, str]], data: st.DataObject) -> None:
    """Whatever comes and goes; "" is who came back."""
    away, model = AwayPorts(), dict[int, tuple[str, float]]()
    looked = -1.0
    for now, (port, serial) in enumerate(steps):
        model.pop(port, None)
        away.drop(port)
        if serial:
            away.add(port, serial, float(now))
            model[port] = serial, float(now)
        looked = max(looked, float(data.draw(st.integers(0, now))))
        old = {port: (serial, since) for port, (serial, since) in model.items() if since <= looked}
        kept = [serial for serial, _ in old.values()]
        ports = sorted(
            old,
            key=lambda port: (
                -kept.count(old[port][0]),
                min(since for serial, since in old.values() if serial == old[port][0]),
                old[port][1],
            ),
        )
        assert away.first(looked) == (ports[0] if ports else None)
        assert len(away) == len(model)
