"""What an operator asks of the server's tables, and the server itself never does: it reads many rows."""

from __future__ import annotations

from sims.server.sqlite_tables import Tables


def waiting(tables: Tables) -> dict[str, tuple[int, int]]:
    """How many messages, and bytes, wait for whom, by id; nobody for whom none do."""
    rows = tables.connection.execute(
        "select a.id, sum(p.messages), sum(p.size) from pairs p join accounts a on a.number = p.dst group by a.id"
    )
    return {id: (messages, size) for id, messages, size in rows}


def totals(tables: Tables) -> dict[str, int]:
    """How many there are of what."""
    counted = {
        "accounts": "select count(*) from accounts",
        "invitations that can be used": "select count(*) from invitations where uses > 0",
        "people with a bundle": "select count(*) from bundles",
        "one-time keys": "select count(*) from one_time_keys where raw is not null",
        "messages that wait": "select ifnull(sum(messages), 0) from pairs",
        "bytes that wait": "select ifnull(sum(size), 0) from pairs",
        "remembered messages": "select count(*) from letters where gone = 1",
    }
    return {name: int(tables.connection.execute(asked).fetchone()[0]) for name, asked in counted.items()}


def problems(tables: Tables) -> list[str]:
    """What in the tables does not fit together, in words."""
    asked = {
        "letters without a body": "select count(*) from letters l left join bodies b using (number)"
        " where l.gone = 0 and b.number is null",
        "letters without a key": "select count(*) from letters l left join keys k using (number)"
        " where l.gone = 0 and k.number is null",
        "bodies of letters that are gone": "select count(*) from bodies b left join letters l using (number)"
        " where l.number is null or l.gone = 1",
        "mailboxes whose totals are wrong": "select count(*) from (select dst, src, sum(messages) as m, sum(size) as s"
        " from (select dst, src, messages, size from pairs union all"
        " select l.dst, l.src, -1, -length(b.body) from letters l join bodies b using (number) where l.gone = 0)"
        " group by dst, src) where m <> 0 or s <> 0",
        "one-time keys of nobody": "select count(*) from one_time_keys"
        " where owner not in (select number from accounts)",
        "bundles of nobody": "select count(*) from bundles where owner not in (select number from accounts)",
    }
    found = {name: int(tables.connection.execute(query).fetchone()[0]) for name, query in asked.items()}
    return [f"{number} {name}" for name, number in found.items() if number]
