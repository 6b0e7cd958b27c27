SELECT value FROM "sillage".meta WHERE key = $1
