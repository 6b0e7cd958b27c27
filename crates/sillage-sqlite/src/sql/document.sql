SELECT id, version, sort, body FROM documents WHERE collection = ?1 AND id = ?2
