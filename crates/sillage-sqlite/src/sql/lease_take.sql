-- Lease ?1 for owner ?2 until ?3, if it is free at ?4 or already theirs.
INSERT INTO leases (name, owner, epoch, until) VALUES (?1, ?2, 1, ?3)
ON CONFLICT (name) DO UPDATE SET
    epoch = epoch + (owner <> excluded.owner),
    owner = excluded.owner,
    until = excluded.until
WHERE owner = excluded.owner OR until <= ?4
RETURNING epoch
