-- Lease $1 for its owner $2, for $3 microseconds from now; zero: given back. A plain update does not
-- wait for commits that read the epoch.
UPDATE "sillage".leases
SET until = clock_timestamp() + $3 * interval '1 microsecond'
WHERE name = $1 AND owner = $2
RETURNING epoch
