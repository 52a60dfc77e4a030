"""Where devices are kept: one suite for whatever keeps them, and the order of a listing."""

from collections.abc import Callable

import pytest

from revtunnel.fleet.devices import Device, DeviceStore, Memory, in_order


class Elsewhere:
    """A store that finds what is not here at another node, as an engine of several nodes would."""

    def __init__(self) -> None:
        self.here: Memory[str] = Memory()
        self.there: Memory[str] = Memory()

    def select(self, serial: str) -> Device[str] | None:
        return self.here.select(serial) or self.there.select(serial)

    def add(self, device: Device[str]) -> None:
        self.here.add(device)

    def remove(self, device: Device[str]) -> None:
        self.here.remove(device)

    def count(self, system: str | None = None) -> int:
        return self.here.count(system)

    def page(self, after: str, limit: int | None, system: str | None = None) -> list[Device[str]]:
        pages = [each.page(after, limit, system) for each in (self.here, self.there)]
        return in_order(pages, limit)


STORES: list[Callable[[], DeviceStore[str]]] = [Memory, Elsewhere]


def device(serial: str, system: str = "rt1") -> Device[str]:
    """One that is here."""
    return Device(serial, link="a link", system=system)


@pytest.mark.parametrize("make", STORES)
def test_what_is_put_in_is_found_until_it_is_taken_out(make: Callable[[], DeviceStore[str]]) -> None:
    """By its serial, and counted by its system."""
    store = make()
    first, second, third = device("b"), device("a"), device("c", "cccp")
    for each in (first, second, third):
        store.add(each)
    assert store.select("b") is first and store.select("d") is None
    assert (store.count(), store.count("rt1"), store.count("cccp"), store.count("emo")) == (3, 2, 1, 0)
    store.remove(first)
    assert store.select("b") is None and (store.count(), store.count("rt1")) == (2, 1)
    store.add(first)
    assert store.select("b") is first


@pytest.mark.parametrize("make", STORES)
def test_a_page_goes_on_behind_a_serial_that_may_be_gone(
    make: Callable[[], DeviceStore[str]],
) -> None:
    """All systems together or one, in the order of serials whatever that of arrival."""
    store = make()
    for number, serial in enumerate(("d", "a", "c", "b", "e")):
        store.add(device(serial, "cccp" if number % 2 else "rt1"))
    pages = [[each.serial for each in store.page(after, 2)] for after in ("", "b", "bb", "e")]
    assert pages == [["a", "b"], ["c", "d"], ["c", "d"], []]
    assert [each.serial for each in store.page("", None, "cccp")] == ["a", "b"]
    assert [each.serial for each in store.page("a", 5, "rt1")] == ["c", "d", "e"]
    assert store.page("", None, "emo") == []


def test_a_store_may_find_what_is_not_here() -> None:
    """Another node's device is selected and listed, and not counted as ours."""
    store = Elsewhere()
    store.add(device("b"))
    store.there.add(device("a"))
    found = store.select("a")
    assert found is not None and found.serial == "a"
    assert [each.serial for each in store.page("", None)] == ["a", "b"] and store.count() == 1
