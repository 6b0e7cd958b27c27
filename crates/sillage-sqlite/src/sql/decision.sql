SELECT decision FROM inbox WHERE consumer = ?1 AND source = ?2 AND id = ?3
