-- As `log`, of correlation id ?6.
SELECT * FROM entries
WHERE correlation_id = ?6 AND position > ?1 AND position <= ?2
    AND (?3 IS NULL OR topic IN (SELECT value FROM json_each(?3)))
    AND (?4 IS NULL OR name IN (SELECT value FROM json_each(?4)))
ORDER BY position
LIMIT ?5
