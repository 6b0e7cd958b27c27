-- Documents of collection $1 whose ids start with $2 and come after $3, at most $4. Nothing
-- with that prefix is longer, or above the last character there is.
SELECT id, version, sort, body
FROM "sillage".documents
WHERE collection = $1 AND id >= $2 AND id > $3
    AND id <= $2 || repeat(chr(1114111), 512)
ORDER BY id
LIMIT $4
