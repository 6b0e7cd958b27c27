-- Documents of collection $1 with these ids ($2).
SELECT id, version, sort, body
FROM "sillage".documents
WHERE collection = $1 AND id = ANY($2)
