-- Entries of stream ?1 after version ?2, at most ?3.
SELECT entries.* FROM log
JOIN entries ON entries.position = log.position
WHERE log.stream_id = (SELECT id FROM streams WHERE name = ?1) AND log.stream_version > ?2
ORDER BY log.stream_version
LIMIT ?3
