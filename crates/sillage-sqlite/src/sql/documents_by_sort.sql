-- Sort keys from ?2 up to, not including, ?3; at most ?4.
SELECT id, version, sort, body FROM documents
WHERE collection = ?1 AND sort >= ?2 AND sort < ?3
ORDER BY sort, id
LIMIT ?4
