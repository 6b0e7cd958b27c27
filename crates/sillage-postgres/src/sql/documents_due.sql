-- Documents of collection $1 whose sort key is a time that has come; at most $2.
SELECT id, version, sort, body
FROM "sillage".documents
WHERE collection = $1
    AND sort IS NOT NULL
    AND left(sort, 256) <= to_char(
        clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
    ) COLLATE "C"
ORDER BY left(sort, 256), sort, id
LIMIT $2
