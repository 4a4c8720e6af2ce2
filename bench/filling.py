"""A backlog without its intake: copies of one accepted claim, made in Postgres."""

import psycopg

from bench.clients import Client
from bench.installation import Installation

# What is sealed is not bound to its row, so a copy can be opened. Each copy is a workflow of its own: another id, and a
# minute of its own, so another visit, slot and appointment.
_FILL = """
    CREATE TEMP TABLE copies AS SELECT number, gen_random_uuid() AS id FROM generate_series(1, {number}) AS number;
    INSERT INTO workflows SELECT made.* FROM workflows w, copies, LATERAL jsonb_populate_record(w, jsonb_build_object(
        'id', copies.id, 'slot', w.slot || '-' || number,
        'due_at', clock_timestamp(), 'wake_at', clock_timestamp(),
        'created_at', clock_timestamp(), 'updated_at', clock_timestamp()
    )) AS made WHERE w.client_id = '{client}';
    INSERT INTO claims SELECT made.* FROM claims c JOIN workflows w USING (id), copies, LATERAL jsonb_populate_record(
        c, jsonb_build_object('id', copies.id, 'visit', c.visit || '-' || number, 'appointment', c.appointment
            || jsonb_build_object('dateTime', to_char(timestamp '2024-01-01' + number * interval '1 minute',
                                                      'YYYY-MM-DD"T"HH24:MI:SS')))
    ) AS made WHERE w.client_id = '{client}';
    INSERT INTO moves (workflow_id, "to", actor, reason) SELECT id, 'accepted', 'client', '' FROM copies;
    ANALYZE;
"""


def fill(on: Installation, client: Client, number: int) -> None:
    """Give a client without claims so many and one, accepted and due. While no worker runs."""
    client.claims(1)
    with psycopg.connect(on.postgres.url) as connection:
        connection.execute(_FILL.format(number=number, client=client.id))
