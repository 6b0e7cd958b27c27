-- Lease $1, which nobody ever had, for owner $2 and $3 microseconds from now.
INSERT INTO "sillage".leases (name, owner, epoch, until)
VALUES ($1, $2, 1, clock_timestamp() + $3 * interval '1 microsecond')
ON CONFLICT DO NOTHING
RETURNING epoch
