-- The last position given out, and up to where entries are gone.
SELECT
    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'log'), 0),
    (SELECT value FROM meta WHERE key = 'trimmed_before')
