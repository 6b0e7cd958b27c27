-- Sort keys up to ?2, the database's now; at most ?3.
SELECT id, version, sort, body FROM documents
WHERE collection = ?1 AND sort <= ?2
ORDER BY sort, id
LIMIT ?3
