"""The table of branches by room."""

from tests.branches import by_room


def test_rooms_are_summed_up_with_all_their_folders() -> None:
    """What is in no room, or has no branch, is in no line."""
    counts = {
        "revtunnel/__init__.py": (0, 2),
        "revtunnel/link/mux.py": (3, 4),
        "revtunnel/link/link.py": (1, 2),
        "revtunnel/systems/emo/emo.py": (5, 5),
        "revtunnel/ground/reasons.py": (0, 0),
    }
    files = {
        name: {"summary": {"covered_branches": taken, "num_branches": branches}}
        for name, (taken, branches) in counts.items()
    }
    assert by_room({"files": files}) == {"link": (4, 6), "systems": (5, 5)}
