-- Lease $1, which somebody else had, for owner $2 and $3 microseconds from now, if it is free. It is
-- locked first, which waits for commits in progress under the epoch that ends.
WITH free AS MATERIALIZED (
    SELECT
    FROM "sillage".leases
    WHERE name = $1 AND owner <> $2 AND until <= clock_timestamp()
    FOR UPDATE
)
UPDATE "sillage".leases AS l
SET owner = $2, epoch = l.epoch + 1, until = clock_timestamp() + $3 * interval '1 microsecond'
FROM free
WHERE l.name = $1
RETURNING l.epoch
