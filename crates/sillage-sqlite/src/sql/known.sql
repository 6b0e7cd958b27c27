-- Whether the log holds this message.
SELECT 1 FROM log WHERE id = ?1 AND source = ?2
