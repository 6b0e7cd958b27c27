-- What this user may not do, one a row: what is missing, and on what.
SELECT wanted.right, wanted.name
FROM (
    SELECT r.right, t.name, has_table_privilege('"sillage".' || t.name, r.right) AS granted
    FROM unnest(ARRAY['log', 'streams', 'inbox', 'documents', 'leases', 'meta']) AS t (name),
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r ("right")
    UNION ALL
    SELECT 'USAGE', s.name, has_sequence_privilege('"sillage".' || s.name, 'USAGE')
    FROM unnest(ARRAY['log_position']) AS s (name)
    UNION ALL
    SELECT 'SELECT', s.name, has_sequence_privilege('"sillage".' || s.name, 'SELECT')
    FROM unnest(ARRAY['log_position']) AS s (name)
) AS wanted
WHERE NOT wanted.granted
