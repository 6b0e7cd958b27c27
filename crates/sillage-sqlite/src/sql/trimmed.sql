UPDATE meta SET value = ?1 WHERE key = 'trimmed_before' AND value < ?1
