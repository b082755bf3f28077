"""What an operator asks of the server's tables, and the server itself never does: it reads many rows."""

from __future__ import annotations

from sims.server.sqlite_tables import Tables

#: The totals, with those of the letters that are not filed: those after the number that is to be given.
_PAIRS = (
    "select dst, src, messages, size from pairs union all select l.dst, l.src, 1, length(b.body)"
    " from letters l join bodies b using (number) where l.number > ?1"
)


def waiting(tables: Tables) -> dict[str, tuple[int, int]]:
    """How many messages, and bytes, wait for whom, by id; nobody for whom none do."""
    rows = tables.connection.execute(
        f"select a.id, sum(p.messages), sum(p.size) from ({_PAIRS}) p"  # noqa: S608
        " join accounts a on a.number = p.dst group by a.id",
        (tables.last_filed(),),
    )
    return {id: (messages, size) for id, messages, size in rows}


def totals(tables: Tables) -> dict[str, int]:
    """How many there are of what."""
    counted = {
        "accounts": "select count(*) from accounts",
        "invitations that can be used": "select count(*) from invitations where uses > 0",
        "people with a bundle": "select count(*) from bundles",
        "one-time keys": "select count(*) from one_time_keys where raw is not null",
        "messages that wait": f"select ifnull(sum(messages), 0) from ({_PAIRS})",  # noqa: S608
        "bytes that wait": f"select ifnull(sum(size), 0) from ({_PAIRS})",  # noqa: S608
        "remembered messages": "select count(*) from letters where gone = 1",
    }
    return _numbers(tables, counted)


def _numbers(tables: Tables, asked: dict[str, str]) -> dict[str, int]:
    """What these queries count."""
    filed = tables.last_filed()
    run = tables.connection.execute
    return {name: int(run(query, (filed,) if "?1" in query else ()).fetchone()[0]) for name, query in asked.items()}


def problems(tables: Tables) -> list[str]:
    """What in the tables does not fit together, in words."""
    asked = {
        "letters without a body": "select count(*) from letters l left join bodies b using (number)"
        " where l.gone = 0 and b.number is null",
        "letters without a key": "select count(*) from letters l left join keys k using (number)"
        " where l.gone = 0 and k.number is null",
        "bodies of letters that are gone": "select count(*) from bodies b left join letters l using (number)"
        " where l.number is null or l.gone = 1",
        "mailboxes whose totals are wrong": f"select count(*) from (select 1 from ({_PAIRS} union all"  # noqa: S608
        " select l.dst, l.src, -1, -length(b.body) from letters l join bodies b using (number) where l.gone = 0)"
        " group by dst, src having sum(messages) <> 0 or sum(size) <> 0)",
        "letters that are not filed, before one that is": "select count(*) from letters"
        " where number <= ?1 and filed = 0",
        "one-time keys of nobody": "select count(*) from one_time_keys"
        " where owner not in (select number from accounts)",
        "bundles of nobody": "select count(*) from bundles where owner not in (select number from accounts)",
    }
    return [f"{number} {name}" for name, number in _numbers(tables, asked).items() if number]
