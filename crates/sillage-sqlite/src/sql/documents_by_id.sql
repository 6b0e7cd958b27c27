-- From prefix ?2 and after ?3, at most ?4; the caller stops where the prefix ends.
SELECT id, version, sort, body FROM documents
WHERE collection = ?1 AND id >= ?2 AND id > ?3
ORDER BY id
LIMIT ?4
