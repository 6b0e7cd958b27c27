-- Documents of collection $1, sort keys from $2 up to, not including, $3; at most $4. The index has
-- the beginnings of sort keys.
SELECT id, version, sort, body
FROM "sillage".documents
WHERE collection = $1
    AND left(sort, 256) >= left($2, 256)
    AND left(sort, 256) <= left($3, 256)
    AND sort IS NOT NULL AND sort >= $2 AND sort < $3
ORDER BY left(sort, 256), sort, id
LIMIT $4
