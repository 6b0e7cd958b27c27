DELETE FROM log WHERE stream_id = ?1 AND position <= ?2
