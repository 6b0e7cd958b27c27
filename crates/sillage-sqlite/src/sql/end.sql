-- The last position given out.
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'log'), 0)
