-- Entries without a stream, up to ?1.
DELETE FROM log
WHERE position > (SELECT value FROM meta WHERE key = 'trimmed_before')
    AND position <= ?1
    AND stream_id IS NULL
