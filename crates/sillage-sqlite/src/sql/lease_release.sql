-- The owner stays named, so that the epoch grows only when somebody else takes it.
UPDATE leases SET until = 0 WHERE name = ?1 AND owner = ?2 RETURNING epoch
