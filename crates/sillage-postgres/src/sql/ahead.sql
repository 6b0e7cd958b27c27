-- The checkpoint that is farthest above $1, the last position given out.
SELECT reader, position
FROM "sillage".checkpoints
WHERE position > $1
ORDER BY position DESC
LIMIT 1
