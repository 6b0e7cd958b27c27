-- A document without a sort key is below nothing.
SELECT coalesce(sort < ?3, 0) FROM documents WHERE collection = ?1 AND id = ?2
