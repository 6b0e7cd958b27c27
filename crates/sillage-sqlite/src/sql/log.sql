-- After ?1 up to ?2; topics ?3 and names ?4 are JSON arrays, NULL for any; at most ?5.
SELECT * FROM entries
WHERE position > ?1 AND position <= ?2
    AND (?3 IS NULL OR topic IN (SELECT value FROM json_each(?3)))
    AND (?4 IS NULL OR name IN (SELECT value FROM json_each(?4)))
ORDER BY position
LIMIT ?5
