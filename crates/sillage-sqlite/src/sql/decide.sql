INSERT INTO inbox (consumer, source, id, decision, partition, offset, at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT (consumer, source, id) DO UPDATE SET
    decision = excluded.decision,
    partition = excluded.partition,
    offset = excluded.offset,
    at = excluded.at
