-- Notes, for those who keep entries in memory, that some were removed or put back.
INSERT INTO "sillage".meta AS m (key, value)
VALUES ('rewritten', '1')
ON CONFLICT (key) DO UPDATE SET value = (m.value::bigint + 1)::text
