-- As `log`, of stream ?7, where versions rise with positions, and of correlation id ?6, NULL for any.
SELECT entries.* FROM log
JOIN entries ON entries.position = log.position
WHERE log.stream_id = (SELECT id FROM streams WHERE name = ?7)
    AND log.position > ?1 AND log.position <= ?2
    AND (?3 IS NULL OR log.topic IN (SELECT value FROM json_each(?3)))
    AND (?4 IS NULL OR log.name IN (SELECT value FROM json_each(?4)))
    AND (?6 IS NULL OR log.correlation_id = ?6)
ORDER BY log.stream_version
LIMIT ?5
