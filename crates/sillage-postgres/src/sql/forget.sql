-- Drops inbox rows of consumer $1 in partition $2 up to offset $3; those that others hold are left
-- to the next time.
DELETE FROM "sillage".inbox
WHERE ctid IN (
    SELECT ctid FROM "sillage".inbox
    WHERE consumer = $1 AND partition = $2 AND "offset" <= $3
    FOR UPDATE SKIP LOCKED
)
