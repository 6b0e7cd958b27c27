UPDATE meta SET value = value + 1 WHERE key = 'timers_set' RETURNING value
