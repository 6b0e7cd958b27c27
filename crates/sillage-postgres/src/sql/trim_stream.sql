DELETE FROM "sillage".log WHERE stream = $1 AND position <= $2
