-- A new incarnation ($1) of the log, whose origin ($2) has changed; one process does so.
WITH changed AS (
    UPDATE "sillage".meta SET value = $2 WHERE key = 'origin' AND value <> $2 RETURNING key
)
UPDATE "sillage".meta SET value = $1 FROM changed WHERE meta.key = 'incarnation'
