DELETE FROM inbox WHERE consumer = ?1 AND partition = ?2 AND offset <= ?3
