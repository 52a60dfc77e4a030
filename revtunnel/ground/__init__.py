"""What everything stands on: two kinds of fault, reasons, serials, targets, limits, facts, networks.

For: words and values that every room uses, each with its grammar, its unit, its limit.
Law: the standard library only; no socket, no clock, no state that changes.
Way in: ``errors`` (whose fault it is), ``reasons`` (why something ended), ``limits`` (what may be held, how
long), ``declared`` (how a setting is declared), ``facts`` (what is told to logs, counters, watchers).
"""
