-- Removes entries without a stream up to $1, and notes that they are gone.
WITH gone AS (
    DELETE FROM "sillage".log
    WHERE position > (SELECT value::bigint FROM "sillage".meta WHERE key = 'trimmed_before')
        AND position <= $1
        AND stream IS NULL
)
UPDATE "sillage".meta
SET value = $1::bigint::text
WHERE key = 'trimmed_before' AND value::bigint < $1
