INSERT INTO streams (name, version) VALUES (?1, 1)
ON CONFLICT (name) DO UPDATE SET version = version + 1
RETURNING id, version
